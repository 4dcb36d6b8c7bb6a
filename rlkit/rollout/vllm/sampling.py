"""What both vLLM engines share: settings, how a request is made, how an answer is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rlkit.batch import Request
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.ops import stream_seed
from rlkit.rollout.base import Generation, GenerationCall, RolloutConfig
from rlkit.rollout.sampling import KEPT, truncate
from rlkit.rollout.stops import Stops, end_tokens, special_tokens

FINISHED = ("stop", "length")


class VLLMSamplingConfig(RolloutConfig):
    """Settings both vLLM engines have."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """dtype of the engine's weights and products; the trainer's weights are cast to it at each
    sync. null = that of the servers for vllm_server; for vllm bfloat16 on a GPU if the trainer
    computes in bfloat16 (model.dtype or model.autocast), else model.dtype."""
    sync_tolerance: Annotated[float, Field(gt=0)] | None = None
    """How far, in nats per token, the engine and the trainer may differ on the probe after a weight
    sync; null = 0.001 if both compute in float32, else what rounding explains, measured on the
    policy (`rlkit.rollout.precision.rounding_bound`)."""
    continues: ClassVar[bool] = True
    samples_apart: ClassVar[bool] = True

    @model_validator(mode="after")
    def _sees_stop_texts(self) -> VLLMSamplingConfig:
        if self.oversample > 0 and self.stop:
            raise ValueError(
                f"rollout.oversample={self.oversample} with rollout.stop needs rollout=hf: vLLM "
                "does not see a stop text that begins in one round and ends in the next"
            )
        if self.draft != "none" and self.stop:
            raise ValueError(
                f"rollout.draft={self.draft} with rollout.stop needs rollout=hf: vLLM does not see "
                "a stop text that begins in the draft and ends after it"
            )
        return self

    @model_validator(mode="after")
    def _knows_the_kept_mass(self) -> VLLMSamplingConfig:
        if self.top_p < 1 and self.top_k == 0:
            raise ValueError(
                f"rollout.top_p={self.top_p} needs rollout.top_k with vLLM, for example 50: it "
                "reports only the most probable tokens, and the kept mass is computed from them"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One response to be sampled."""

    prompt_ids: list[int]
    parameters: Mapping[str, Any]
    """Named as in vLLM's SamplingParams and as in its completions API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response as vLLM reports it."""

    ids: Sequence[int]
    logp: Sequence[float]
    """Of the sampled tokens, before top_p and top_k."""
    top: Sequence[Sequence[float]]
    """The most probable tokens' log-probs at each position; read only with top_k."""
    finish_reason: str | None
    version: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """What a request needs to know about the run."""

    seed: int
    ends: Sequence[int]
    """The tokens that end a response."""
    special: Mapping[str, int]
    """The tokenizer's special tokens."""
    vocabulary: int

    @staticmethod
    def of(policy: Policy, seed: int) -> Asker:
        """Ends are the tokenizer's end-of-sequence token and those of the generation config."""
        return Asker(
            seed=seed,
            ends=end_tokens(policy),
            special=special_tokens(policy.tokenizer),
            vocabulary=policy.model.config.get_text_config().vocab_size,
        )

    def jobs(self, call: GenerationCall, config: VLLMSamplingConfig) -> list[Job]:
        """Every response of a call's own requests, one after the other, each with its own seed.

        The seed depends on the stream, the request and the response, not on who samples it.
        """
        stops = Stops.of(config.stop, self.special)
        own = call.settings(config)
        top_k = 0 if call.greedy else min(own.top_k, self.vocabulary)
        # the worker divides the logits by the rollout's temperature
        shared = {
            "temperature": 0.0 if call.greedy else own.temperature / config.temperature,
            "top_p": 1.0 if call.greedy else own.top_p,
            "top_k": top_k,
            "logprobs": top_k if call.sampling is None else 0,
            "stop": [*stops.plain, *stops.mixed],
            "stop_token_ids": sorted({*self.ends, *stops.tokens}),
            "include_stop_str_in_output": True,
        }
        if stops.mixed:
            shared["skip_special_tokens"] = False
        name, *index = call.stream
        asked = [
            (request, (place, number))
            for place, request in list(enumerate(call.requests))[call.part]
            for number in range(request.n)
        ]
        if call.numbers is not None:
            rows = zip(asked, call.numbers, strict=True)
            asked = [(request, (number, 0)) for (request, _), number in rows]
        return [
            Job(
                prompt_ids=request.ids.tolist(),
                parameters=shared
                | {
                    "max_tokens": own.room(request),
                    "seed": stream_seed(self.seed, name, *index, *draw),
                },
            )
            for request, draw in asked
        ]


def generation(answer: Answer, config: VLLMSamplingConfig, call: GenerationCall) -> Generation:
    """The response as the rest of rlkit reads it. Raises UserError if it was not finished."""
    kept = config.truncates and not call.greedy and call.sampling is None
    if answer.finish_reason not in FINISHED:
        raise UserError(f"vLLM ended a response with '{answer.finish_reason}'")
    return Generation(
        response_ids=torch.tensor(answer.ids, dtype=torch.int64),
        logp=torch.tensor(answer.logp, dtype=torch.float32),
        policy_version=torch.tensor(answer.version, dtype=torch.int32),
        finish_reason=answer.finish_reason,
        extras={KEPT: kept_logmass(answer.top, config)} if kept else {},
    )


def kept_logmass(top: Sequence[Sequence[float]], config: VLLMSamplingConfig) -> Tensor:
    """The log of the mass that top_k and then top_p keep at each position, [T]."""
    if not top:
        return torch.zeros(0)
    width = max(map(len, top))
    rows = torch.tensor([[*row, *[-torch.inf] * (width - len(row))] for row in top])
    return truncate(rows, config.top_p, config.top_k).logsumexp(-1)


def by_request(flat: Sequence[Generation], requests: Sequence[Request]) -> list[list[Generation]]:
    """Responses in the order of `Asker.jobs`, request by request."""
    rest = iter(flat)
    return [[next(rest) for _ in range(request.n)] for request in requests]
