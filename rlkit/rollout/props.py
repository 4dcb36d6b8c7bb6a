"""Sampling what the data lacks: `rollout.behavior=props`, around the engine hf.

phi <- policy;  a few steps down on the responses that are there;  the next ones come from phi
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlkit.batch import Request
from rlkit.config.revisits import BehaviorSettings
from rlkit.errors import UserError
from rlkit.interfaces import State, Tokens
from rlkit.models.output_adapter import OutputAdapter, States
from rlkit.models.policy import Policy
from rlkit.models.recompute import evaluating
from rlkit.ops import stream_rng
from rlkit.rollout.base import (
    EngineAround,
    Generation,
    GenerationCall,
    RolloutEngine,
)
from rlkit.rollout.verify import batches
from rlkit.rollout.visits import Stored, Visits

CLAMP = 20.0
"""Log-ratios are clamped to [-CLAMP, CLAMP] before exp."""


def props_objective(
    log_ratio: Tensor, *, clip: float = 0.3, kl: float = 0.1
) -> tuple[Tensor, Tensor]:
    """What the adapter minimizes, and KL(policy || phi), means over tokens [N].

        mean max(r, clip(r, 1 - eps, 1 + eps)) + lambda KL,   r = phi / policy

    It is PPO's surrogate with the advantage -1 for every token that is there: each becomes less
    probable until its ratio is below 1 - eps. The KL is estimated on the same tokens by
    r - 1 - log r. Source: PROPS (arXiv:2311.08290), Algorithm 1.
    """
    d = log_ratio.clamp(-CLAMP, CLAMP)
    ratio = d.exp()
    distance = (torch.expm1(d) - d).mean()
    surrogate = torch.maximum(ratio, ratio.clamp(1 - clip, 1 + clip)).mean()
    return surrogate + kl * distance, distance.detach()


def sampling_error(counts: Tensor, policy: Tensor) -> Tensor:
    """KL(data || policy) in nats, from the counts [V] of tokens and the policy's probabilities.

    The paper's measure of how far a data set is from what the policy samples.
    """
    share = counts.double() / counts.sum()
    return torch.where(share > 0, share * (share / policy.double()).log(), 0.0).sum()


@dataclass(slots=True)
class Cost:
    """What the adapter took since the metrics were asked for."""

    rounds: int = 0
    steps: int = 0
    tokens: int = 0
    """Stepped down on, each round's own."""
    distance: float = 0.0
    """Sum over rounds of KL(policy || phi) per token."""
    seconds: float = 0.0

    def metrics(self, stored: int) -> dict[str, float]:
        """The same by name, means over rounds; nothing if nothing was generated."""
        if not self.rounds:
            return {}
        return {
            "rollouts/behavior_steps": self.steps / self.rounds,
            "rollouts/behavior_tokens": self.tokens / self.rounds,
            "rollouts/behavior_kl": self.distance / self.rounds,
            "rollouts/behavior_stored_tokens": stored,
            "time/behavior": self.seconds,
        }


def step_down(
    adapter: OutputAdapter, policy: Policy, states: States, settings: BehaviorSettings
) -> tuple[int, float]:
    """Train an adapter that changes nothing yet; returns its steps and KL(policy || phi).

    Every step is on all tokens. They end at `behavior_steps`, or when the KL is above
    `behavior_kl_limit`.
    """
    assert policy.head is not None
    optimizer = torch.optim.Adam(adapter.parameters, lr=settings.behavior_learning_rate)
    limit = settings.behavior_kl_limit
    own: Tensor | None = None
    for step in range(settings.behavior_steps + 1):
        logp = adapter.logp(policy.model, policy.head, states, policy.temperature)
        own = logp.detach() if own is None else own
        value, kl = props_objective(
            logp - own, clip=settings.behavior_clip, kl=settings.behavior_kl
        )
        if step == settings.behavior_steps or (limit is not None and float(kl) > limit):
            return step, float(kl)
        gradients = torch.autograd.grad(value, adapter.parameters)
        for parameter, gradient in zip(adapter.parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    raise AssertionError("the last step returns")


class Props(EngineAround):
    """An engine that samples from phi, an adapter on the policy pushed off the data that is there.

    A call is answered in `behavior_rounds` rounds. Before each, phi begins at the policy again and
    takes steps down on the earlier rounds' responses and on those of the last visits of all prompts
    of the call; without any data it stays the policy. Log-probs are phi's, exact, so the trainer
    computes prox_logp of fresh samples with one more forward and logs `off_policy/engine_kl`. The
    loss stays what it is: the data together, not each response, is what resembles the policy.
    Greedy responses and evaluations are the policy's. Source: PROPS (arXiv:2311.08290); without
    clip, limit and KL it is ROS. Status: adapted: the objective is the paper's; phi is a low-rank
    adapter before the output layer, anew in each round, and the data are responses to the same
    prompts, some of earlier policies, as in the paper's buffer.

    Public code: NicholasCorrado/PROPS, `props_update`, has the objective without the KL term, which
    only ends the steps there; its minibatch is the whole data, as here.
    """

    sources = ("2311.08290",)

    def __init__(self, inner: RolloutEngine[Any]) -> None:
        super().__init__(inner)
        self.visits = Visits(self.config.behavior_tokens, each=self.config.behavior_visits)
        self.cost = Cost()

    @property
    def matches_trainer(self) -> bool:
        """Its log-probs are the adapter's."""
        return False

    def start(self, policy: Policy, seed: int) -> None:
        """Start the engine."""
        self.inner.start(policy, seed)
        self.policy, self.seed = policy, seed

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request, in rounds; whole ones of training count in later ones.

        Raises UserError if the model's output layer cannot be read.
        """
        parts = any(len(r.prefix) or r.max_tokens is not None for r in call.own)
        if call.greedy or call.evaluates or call.sampling is not None or parts:
            return self.inner.generate(call)
        if self.policy.head is None:
            raise UserError(
                f"rollout.behavior={self.config.behavior} needs a plain linear output layer, and "
                f"that of a {type(self.policy.model).__name__} is none: leave it at policy"
            )
        first, _, _ = call.part.indices(len(call.requests))
        counts = [request.n for request in call.requests]
        starts = [sum(counts[:place]) for place in range(first, first + len(call.own))]
        found: list[list[Generation]] = [[] for _ in call.own]
        for turn in range(self.config.behavior_rounds):
            self._round(call, turn, starts, found)
        for request, group in zip(call.own, found, strict=True):
            self.visits.add(request.prompt.prompt_id, [Stored(one) for one in group])
        return found

    def metrics(self) -> dict[str, float]:
        """What the adapter took since it was last asked, and the engine's own."""
        found = self.cost.metrics(self.visits.tokens)
        self.cost = Cost()
        return {**self.inner.metrics(), **found}

    def state_dict(self) -> State:
        """The earlier responses, and the engine's state; no adapter outlives its round."""
        return {"inner": self.inner.state_dict(), "visits": self.visits.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state.get("inner", {}))
        self.visits.load_state_dict(state.get("visits", {}))

    def _round(
        self,
        call: GenerationCall,
        turn: int,
        starts: Sequence[int],
        found: Sequence[list[Generation]],
    ) -> None:
        """Add a round's share of every group."""
        asked, numbers, places = list[Request](), list[int](), list[int]()
        for place, request in enumerate(call.own):
            share = range(*(request.n * t // self.config.behavior_rounds for t in (turn, turn + 1)))
            if len(share):
                asked.append(replace(request, n=len(share)))
                numbers += [starts[place] + each for each in share]
                places.append(place)
        if not asked:
            return
        started = time.perf_counter()
        adapter = self._adapter(call, turn, found)
        self.cost.seconds += time.perf_counter() - started
        going = GenerationCall(asked, call.stream, numbers=numbers, tell=call.tell)
        with nullcontext() if adapter is None else adapter.on(self.policy.model):
            answers = self.inner.generate(going)
        for place, group in zip(places, answers, strict=True):
            found[place].extend(group)

    def _adapter(
        self, call: GenerationCall, turn: int, found: Sequence[Sequence[Generation]]
    ) -> OutputAdapter | None:
        """Pushed off the data of the call's prompts; None if there is none."""
        self.cost.rounds += 1
        pairs = [
            (request.prompt.ids, each.response_ids)
            for request, group in zip(call.own, found, strict=True)
            for each in (
                *(one.response for one in self.visits.of(request.prompt.prompt_id)),
                *group,
            )
        ]
        if not pairs:
            return None
        with evaluating(self.policy.model):
            states = self._states(pairs)
            adapter = self._blank(call, turn, states.hidden)
            steps, kl = step_down(adapter, self.policy, states, self.config)
        self.cost.steps += steps
        self.cost.tokens += len(states.ids)
        self.cost.distance += kl
        return adapter

    def _states(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> States:
        """The policy's hidden states at every token of the responses."""
        prompts, responses = [p for p, _ in pairs], [r for _, r in pairs]
        return States.join(
            [
                States.of(self.policy, Tokens.of(prompts[part], responses[part]))
                for part in batches(prompts, responses)
            ]
        )

    def _blank(self, call: GenerationCall, turn: int, hidden: Tensor) -> OutputAdapter:
        """An adapter that changes nothing, its first half drawn from the call's stream."""
        name, *index = call.stream
        width = hidden.shape[-1]
        rng = stream_rng(self.seed, f"{name}/behavior", *index, turn)
        a = rng.standard_normal((self.config.behavior_rank, width)) / np.sqrt(width)
        return OutputAdapter(torch.from_numpy(a).float().to(hidden.device))
