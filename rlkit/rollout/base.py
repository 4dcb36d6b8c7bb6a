"""What every rollout engine has: settings, and generation with behaviour-policy log-probs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import Request
from rlkit.interfaces import Part, PartConfig
from rlkit.policy import Policy


class RolloutConfig(PartConfig):
    """Settings every engine has."""

    num_generations: Annotated[int, Field(ge=1)] = 8
    """Responses a prompt (the group size)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Sampling temperature; every log-prob of the run is at this temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus mass kept; 1 = off. The untreated bias of a truncated sampler was about 0.1 nat a
    token at 0.9."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Most probable tokens kept; 0 = all."""
    max_prompt_length: Annotated[int, Field(ge=1)] = 512
    """Tokens of a prompt; see task.overlong."""
    max_completion_length: Annotated[int, Field(ge=1)] = 512
    """Tokens of a response."""
    stop: tuple[str, ...] = ()
    """Texts that end a response when they appear in it."""
    sync_every: Annotated[int, Field(ge=1)] = 1
    """Training steps between two weight syncs, in mode sync: the weights that generate are up to
    sync_every - 1 steps old. OAPL (arXiv:2602.19362) syncs every 50 steps, at most every 400."""
    mode: Literal["sync", "ahead", "async"] = "sync"
    """sync = a step's responses are generated when it begins; ahead = in a process of their own
    while the step before trains; async = there too, up to max_staleness steps before."""
    max_staleness: Annotated[int, Field(ge=0)] = 4
    """In mode async: by how many training steps the weights that generated a group may be behind
    those it trains; older groups are dropped. The default is that of SkyRL."""
    deterministic: bool = False
    """In mode async: each response's weights depend on the plan alone, not on the clock, so that a
    run can be repeated and resumed exactly; they are then as old as they may be. Mode ahead is
    always so."""

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


RolloutC = TypeVar("RolloutC", bound=RolloutConfig, default=RolloutConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One response as an engine returns it, on the CPU."""

    response_ids: Tensor
    """[T] int64, with the end-of-sequence token where there was one."""
    logp: Tensor
    """[T] float32, under the policy that sampled it, before any truncation."""
    policy_version: Tensor
    """[T] int32"""
    finish_reason: str
    extras: Mapping[str, Tensor | float]
    """`kept_logmass` [T] under top_p/top_k: log of the probability mass that was kept."""


class RolloutEngine(Part[RolloutC]):
    """Generates responses with the policy's weights."""

    Config: ClassVar[type[PartConfig]] = RolloutConfig
    exact: bool = False
    """Whether its log-probs of fresh samples are the trainer's own, so that no second forward is
    needed."""

    @abstractmethod
    def start(self, policy: Policy, seed: int) -> None:
        """Take the policy before the first generation."""

    @abstractmethod
    def sync(self, step: int) -> None:
        """Generate with the policy's weights of the start of training step `step` from now on.

        Where `sync_every` is more than 1 they must be a copy, since the policy goes on to learn.
        """

    @abstractmethod
    def generate(
        self, requests: Sequence[Request], stream: tuple[str, int, int], *, greedy: bool = False
    ) -> list[list[Generation]]:
        """Responses to each request, in order.

        `stream` names the random draws (name, step, call): the same stream gives the same draws.
        """

    def close(self) -> None:
        """Release what the engine holds."""
