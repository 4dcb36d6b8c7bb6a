"""What every rollout engine has: settings, and generation with behavior-policy log-probs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import Request
from rlkit.config.revisits import BehaviorSettings, DraftSettings, conflict
from rlkit.config.sampling import Sampling
from rlkit.interfaces import Part, PartConfig
from rlkit.models.policy import Policy
from rlkit.rollout.played import Played


class RolloutConfig(DraftSettings, BehaviorSettings):
    """Settings every engine has."""

    num_generations: Annotated[int, Field(ge=1)] = 8
    """Responses per prompt (the group size)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Sampling temperature; every log-prob of the run is at this temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus mass kept; 1 = off. The uncorrected bias of a truncated sampler was about 0.1 nat per
    token at 0.9."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Most probable tokens kept; 0 = all."""
    max_prompt_length: Annotated[int, Field(ge=1)] = 512
    """Most tokens of a prompt; see task.overlong."""
    max_completion_length: Annotated[int, Field(ge=1)] = 512
    """Most tokens of a response."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a response when they appear in it. One that is a special token ends it as a
    token; others are looked for in the text without special tokens, unless they hold one."""
    sync_every: Annotated[int, Field(ge=1)] = 1
    """Training steps between two weight syncs, in mode sync: the weights that generate are up to
    sync_every - 1 steps old. OAPL (arXiv:2602.19362) syncs every 50 steps, at most every 400."""
    mode: Literal["sync", "ahead", "async"] = "sync"
    """sync = a step's responses are generated when it begins; ahead = in a separate process while
    the previous step trains; async = in a separate process too, up to max_staleness steps early."""
    max_staleness: Annotated[int, Field(ge=0)] = 4
    """In mode async: by how many training steps the weights that generated a group may lag behind
    those it trains; older groups are dropped. The default is SkyRL's."""
    deterministic: bool = False
    """In mode async: the weights that generate a response depend on the plan alone, not on timing,
    so that a run can be repeated and resumed exactly; they are then as old as allowed. Mode ahead
    always works this way."""
    oversample: Annotated[float, Field(ge=0)] = 0.0
    """In mode sync: extra groups kept in progress, as a share of those a step wants. A step stops
    generating when enough groups are complete; the others continue in the next step, with its
    weights. 0 = every step waits for its longest response."""
    round_tokens: Annotated[int, Field(ge=1)] = 128
    """With oversample: tokens generated per response between checks for complete groups."""
    save: bool = False
    """Write every response of the run to its folder, with its log-probs and rewards, for
    `buffer=stored` and other tools (docs/rollouts.md)."""
    continues: ClassVar[bool] = False
    """Whether the engine continues a request's prefix and respects its max_tokens."""
    samples_apart: ClassVar[bool] = False
    """Whether the engine follows a call's own sampling."""
    inverts_uniforms: ClassVar[bool] = False
    """Whether each token is the inverse CDF at a number that the stream of the call names."""
    samples_policy: ClassVar[bool] = False
    """Whether it samples with the policy's own modules, so that what is added to them counts."""

    @model_validator(mode="after")
    def _can_revisit(self) -> RolloutConfig:
        if reason := conflict(self):
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _can_oversample(self) -> RolloutConfig:
        if self.oversample > 0 and self.mode != "sync":
            raise ValueError(
                f"rollout.oversample={self.oversample} is for rollout.mode=sync; in mode "
                f"{self.mode} a step's responses are finished when it begins: leave it at 0"
            )
        if self.oversample > 0 and not self.continues:
            raise ValueError(
                f"rollout.oversample={self.oversample} needs an engine that can continue a "
                "response, and this one cannot: leave it at 0, or use rollout=hf"
            )
        return self

    @model_validator(mode="after")
    def _one_lag(self) -> RolloutConfig:
        if self.mode != "sync" and self.sync_every > 1:
            raise ValueError(
                f"rollout.sync_every={self.sync_every} is for rollout.mode=sync; in mode "
                f"{self.mode} every step syncs the weights: leave it at 1"
            )
        return self

    @property
    def steps_ahead(self) -> int:
        """How many training steps before its own a group may be generated."""
        return {"sync": 0, "ahead": 1, "async": self.max_staleness}[self.mode]

    @property
    def truncates(self) -> bool:
        """Whether the sampler differs from the policy."""
        return self.top_p < 1 or self.top_k > 0

    def room(self, request: Request) -> int:
        """Tokens a response to the request may have after its prefix."""
        left = self.max_completion_length - len(request.prefix)
        return left if request.max_tokens is None else min(left, request.max_tokens)


Stream = tuple[str, int, int]
"""What identifies random draws: name, step, call."""
ALL = slice(None)
"""Every request."""
EVALUATION = "eval"
"""How the names of an evaluation's streams begin."""

RolloutC = TypeVar("RolloutC", bound=RolloutConfig, default=RolloutConfig)


@dataclass(frozen=True, slots=True)
class GenerationCall:
    """What an engine is asked to generate."""

    requests: Sequence[Request]
    stream: Stream
    """Identifies the random draws: the same stream gives the same draws."""
    greedy: bool = False
    part: slice = field(default_factory=lambda: ALL)
    """The requests this rank answers, if ranks share them. Their draws are those they would have if
    one process answered all."""
    tell: Callable[[int], None] | None = None
    """Told, now and then, how many of its own requests are answered; an engine may leave it out."""

    numbers: Sequence[int] | None = None
    """The numbers of the draws of each own response, in order; None = those of its place among
    `requests`. A response in several turns keeps its number while others leave the batch."""

    sampling: Sampling | None = None
    """Sampling settings in place of the engine's own, for an evaluation; None = the engine's. Such
    responses are not trained on: their log-probs and kept mass mean nothing."""

    @property
    def own(self) -> Sequence[Request]:
        """The requests of `part`."""
        return self.requests[self.part]

    @property
    def evaluates(self) -> bool:
        """Whether its responses belong to an evaluation."""
        return self.stream[0].startswith(EVALUATION)

    def settings(self, config: RolloutC) -> RolloutC:
        """An engine's settings with the call's own sampling."""
        return config.model_copy(update=self.sampling.given) if self.sampling else config


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One response as an engine returns it, on the CPU."""

    response_ids: Tensor
    """[T] int64, with the end-of-sequence token if there was one."""
    logp: Tensor
    """[T] float32, under the policy that sampled it, before any truncation."""
    policy_version: Tensor
    """[T] int32"""
    finish_reason: str
    extras: Mapping[str, Tensor | float]
    """`kept_logmass` [T] under top_p/top_k: log of the probability mass that was kept."""
    played: Played | None = None
    """What an environment had to do with it; None = nothing."""

    @property
    def loss_mask(self) -> Tensor:
        """[T] bool: the tokens that the policy sampled."""
        if self.played is None:
            return torch.ones(len(self.response_ids), dtype=torch.bool)
        return self.played.loss_mask

    @property
    def own_tokens(self) -> int:
        """How many tokens the policy sampled."""
        return len(self.response_ids) if self.played is None else int(self.loss_mask.sum())

    @property
    def kept(self) -> dict[str, Tensor | float]:
        """What a sample keeps besides its tokens."""
        return {**self.extras, **(self.played.extras if self.played is not None else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """Bytes an engine takes on the policy's device, beside the policy."""

    generating: float
    training: float
    """What it keeps while the policy is trained."""
    weights: float = 0.0
    """What it takes besides, in a process of its own: a copy of weights that it shares else."""
    adapts: bool = False
    """Whether it generates fewer responses at once where memory does not suffice."""


def cache_bytes(policy: Policy, tokens: int, itemsize: int) -> float:
    """Keys and values of so many tokens: 2 layers key-value-heads head-size numbers for each."""
    config: Any = policy.model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return float(2 * config.num_hidden_layers * kept * width * itemsize * tokens)


class RolloutEngine(Part[RolloutC]):
    """Generates responses with the policy's weights."""

    Config: ClassVar[type[PartConfig]] = RolloutConfig
    hosted_by: ClassVar[Literal["every rank", "main process", "single process"]] = "every rank"
    """With multiple training processes, "every rank" has an engine and answers a share of the
    requests, or the "main process" asks an external engine for all; "single process" = it works
    with one training process only."""
    copies_model: ClassVar[bool] = False
    """Whether it copies the model, which is not possible if the weights are sharded."""

    @property
    def matches_trainer(self) -> bool:
        """Whether its log-probs of fresh samples are the trainer's own, with no second forward."""
        return False

    def reserve(self, prompt: int, completion: int) -> None:
        """Be ready for prompts and responses of as many tokens too; called before `start`."""

    @abstractmethod
    def start(self, policy: Policy, seed: int) -> None:
        """Take the policy before the first generation."""

    @abstractmethod
    def sync(self, step: int) -> None:
        """Generate with the policy's weights of the start of training step `step` from now on.

        If `sync_every` is above 1 they must be a copy, since the policy keeps learning.
        """

    @abstractmethod
    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request of `call.part`, in order: what follows its prefix."""

    def memory(self, policy: Policy, responses: int, tokens: int) -> EngineMemory | None:
        """About what it takes for so many responses of so many tokens; None = unknown."""
        return None

    def metrics(self) -> dict[str, float]:
        """What it has to say of its generations since it was last asked."""
        return {}

    def close(self) -> None:
        """Release the engine's resources."""


class EngineAround(RolloutEngine[Any]):
    """An engine around another, and like it where it does not say otherwise."""

    def __init__(self, inner: RolloutEngine[Any]) -> None:
        super().__init__(inner.config)
        self.inner = inner

    @property
    def matches_trainer(self) -> bool:
        """As for the inner engine."""
        return self.inner.matches_trainer

    def reserve(self, prompt: int, completion: int) -> None:
        """Let the inner engine do so."""
        self.inner.reserve(prompt, completion)

    def sync(self, step: int) -> None:
        """Let the inner engine do so."""
        self.inner.sync(step)

    def memory(self, policy: Policy, responses: int, tokens: int) -> EngineMemory | None:
        """As for the inner engine."""
        return self.inner.memory(policy, responses, tokens)

    def metrics(self) -> dict[str, float]:
        """As for the inner engine."""
        return self.inner.metrics()

    def close(self) -> None:
        """Release the inner engine."""
        self.inner.close()
