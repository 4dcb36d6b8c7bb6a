"""Sampling with transformers on the policy's own weights, or on a copy if it lags."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import Request
from rlkit.errors import UserError
from rlkit.interfaces import PartConfig, State
from rlkit.models.memory import SMALLER, is_out_of_memory, release
from rlkit.models.policy import Policy
from rlkit.models.recompute import evaluating
from rlkit.ops import stream_rng
from rlkit.registry import register
from rlkit.rollout.base import (
    EngineMemory,
    Generation,
    GenerationCall,
    RolloutConfig,
    RolloutEngine,
    Stream,
    cache_bytes,
)
from rlkit.rollout.hf_batch import HFBatch
from rlkit.rollout.precision import trainer_dtype
from rlkit.rollout.probe import check_engine
from rlkit.rollout.stops import Stops, end_tokens, special_tokens


class HFConfig(RolloutConfig):
    """Settings of the transformers engine."""

    generation_batch_size: Annotated[int, Field(ge=1)] = 256
    """Responses generated at once; the samples do not depend on it. Halved where memory does not
    suffice."""
    continues: ClassVar[bool] = True
    samples_apart: ClassVar[bool] = True
    inverts_uniforms: ClassVar[bool] = True
    samples_policy: ClassVar[bool] = True


def numbered_draws(
    seed: int, stream: Stream, number: int, count: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The numbers in [0, 1) that draw the first tokens of a response with a number of its own."""
    name, *index = stream
    return stream_rng(seed, name, *index, number).random(count)


HFC = TypeVar("HFC", bound=HFConfig, default=HFConfig)


@register("rollout", "hf")
class HFRollout(RolloutEngine[HFC]):
    """Batched sampling with a key-value cache; behavior log-probs are taken while sampling.

    Each (response, position) has one uniform number of its own and the token is the inverse CDF at
    it, so that the samples do not depend on batching or on rows that finish early.
    """

    Config: ClassVar[type[PartConfig]] = HFConfig
    most: int | None = None
    """Responses that fitted at once, since more did not; part of the state."""
    shares_prompts: bool = False
    """Whether the responses to a prompt share its keys and values; part of the state, since it
    moves log-probs by their rounding."""

    @property
    def matches_trainer(self) -> bool:
        """It samples with the trainer's own forward."""
        return True

    def start(self, policy: Policy, seed: int) -> None:
        """Share the policy's weights, or copy them if the engine lags, and check the model."""
        self.policy = policy
        self.seed = seed
        self.model = policy.model
        if self.config.sync_every > 1:
            self.model = copy.deepcopy(policy.model).requires_grad_(False).train(False)
        self.version = 1
        self.stops = Stops.of(self.config.stop, special_tokens(policy.tokenizer))
        ends = [*end_tokens(policy), *self.stops.tokens]
        self.ends = torch.tensor(ends, dtype=torch.int64)
        check_engine(self, policy)

    def sync(self, step: int) -> None:
        """Copy the weights if they are not shared, and note the version."""
        if self.model is not self.policy.model:
            self.model.load_state_dict(self.policy.model.state_dict())
        self.version = step

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request, in order: what follows its prefix."""
        return self.sample(call)

    @torch.no_grad()
    def sample(self, call: GenerationCall) -> list[list[Generation]]:
        """What `model` generates, whatever a subclass makes of it."""
        counts = [r.n for r in call.requests]
        longest = max(map(call.settings(self.config).room, call.requests), default=0)
        name, *index = call.stream
        if call.numbers is None:
            draws = stream_rng(self.seed, name, *index).random((sum(counts), longest))
            start, stop, _ = call.part.indices(len(counts))
            draws = draws[sum(counts[:start]) : sum(counts[:stop])]
        else:
            draws = np.stack(
                [numbered_draws(self.seed, call.stream, each, longest) for each in call.numbers]
            )
        uniform = torch.from_numpy(draws)
        with evaluating(self.model):
            flat = iter(self._answers(call, uniform))
        return [[next(flat) for _ in range(request.n)] for request in call.own]

    def _answers(self, call: GenerationCall, uniform: Tensor) -> list[Generation]:
        """Every response, one request after the other; in smaller batches once one did not fit."""
        out: list[Generation] = []
        rest = list(call.own)
        while rest:
            chunk, left = self._next_batch(rest)
            rows = sum(request.n for request in chunk)
            draws = uniform[len(out) : len(out) + rows]
            try:
                with self.policy.autocasting():
                    out += HFBatch(self, call, chunk, draws).run()
                rest = left
                if call.tell is not None:
                    call.tell(max(0, len(call.own) - len(rest)))
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if rows <= 1:
                    raise UserError(
                        f"out of memory generating one response; use {SMALLER}"
                    ) from error
            release()
            self.most = rows // 2
        return out

    def _next_batch(self, requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
        """The requests that are answered at once now, and those left.

        A request's responses are generated together, unless as many did not fit.
        """
        first, rest = requests[0], list(requests[1:])
        most = self.config.generation_batch_size
        if self.most is not None and self.most < first.n:
            return [replace(first, n=self.most)], [replace(first, n=first.n - self.most), *rest]
        if self.most is not None:
            most = min(most, self.most)
        batch, rows = [first], first.n
        while rest and rows + rest[0].n <= most:
            rows += rest[0].n
            batch.append(rest.pop(0))
        return batch, rest

    def memory(self, policy: Policy, responses: int, tokens: int) -> EngineMemory:
        """Keys and values of the responses that are generated at once."""
        rows = min(responses, self.config.generation_batch_size, self.most or responses)
        size = cache_bytes(policy, rows * tokens, trainer_dtype(policy).itemsize)
        copy = float(sum(weight.nbytes for weight in policy.model.parameters()))
        return EngineMemory(generating=size, training=0.0, weights=copy, adapts=True)

    def close(self) -> None:
        """Let go of the copy that lags."""
        if "model" in vars(self):
            del self.model

    def state_dict(self) -> State:
        """How it decodes, and how many responses fitted if memory did not suffice for all."""
        state: State = {"shares_prompts": self.shares_prompts}
        return state if self.most is None else {**state, "most": self.most}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
        self.most = state.get("most")
        self.shares_prompts = state.get("shares_prompts", self.shares_prompts)
