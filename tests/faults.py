"""A plug-in with user code that fails in one way, and patches that make the machine fail.

FAULT in the environment chooses; rewards and losses are chosen by name in the command line.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers.models.llama.modeling_llama as llama

import rlkit.training.state
from algorithms.ppo import PPO, PPOConfig
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.registry import register
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.runs.checkpoint import write_checkpoint

CALLS = {"loss": 0, "save": 0}
CALLS["loss"] = -1  # the loss is tried once before the run


def raises(completions: Sequence[str], **columns: Any) -> list[float]:
    raise KeyError("no such thing")


def hangs(completions: Sequence[str], **columns: Any) -> list[float]:
    time.sleep(60)
    return [0.0] * len(completions)


def nan(completions: Sequence[str], **columns: Any) -> list[float]:
    return [float("nan")] * len(completions)


def inf(completions: Sequence[str], **columns: Any) -> list[float]:
    return [float("inf")] * len(completions)


def short(completions: Sequence[str], **columns: Any) -> list[float]:
    return [1.0] * (len(completions) - 1)


def none(completions: Sequence[str], **columns: Any) -> list[float | None]:
    return [None if i % 2 else float(i % 4 == 0) for i in range(len(completions))]


def same(completions: Sequence[str], **columns: Any) -> list[float]:
    return [1.0] * len(completions)


class SickConfig(PPOConfig):
    """Settings of a loss that is sometimes not finite."""

    first: int = 3
    """The first call that gives NaN."""
    last: int = 3
    """The last one."""


@register("loss", "sick")
class Sick(PPO[SickConfig]):
    """PPO whose value is NaN in some calls."""

    Config = SickConfig

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        CALLS["loss"] += 1
        out = super().__call__(policy, batch)
        if self.config.first <= CALLS["loss"] <= self.config.last:
            (term,) = out.terms
            return LossOutput(terms=[replace(term, value=term.value * float("nan"))])
        return out


@register("rollout", "mute")
class Mute(HFRollout):
    """Every third response has no token at all."""

    Config = HFConfig

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        answers = super().generate(call)
        return [
            [cut(g) if i % 3 == 0 else g for i, g in enumerate(generations)]
            for generations in answers
        ]


def cut(g: Generation) -> Generation:
    return replace(
        g,
        response_ids=g.response_ids[:0],
        logp=g.logp[:0],
        policy_version=g.policy_version[:0],
    )


def full_disk() -> None:
    """The second checkpoint cannot be written: the system refuses files of more than 20 kB."""

    def limited(*args: Any) -> Any:
        CALLS["save"] += 1
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if CALLS["save"] == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            return write_checkpoint(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    setattr(rlkit.training.state, "write_checkpoint", limited)  # noqa: B010, what the loop calls


def no_room() -> None:
    """From the second step on the system refuses files of more than 1 kB."""
    real = rlkit.training.trainer.Trainer._train_step

    def limited(self: Any, step: int) -> Any:
        if step == 2:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        return real(self, step)

    setattr(rlkit.training.trainer.Trainer, "_train_step", limited)  # noqa: B010


def little_memory(
    tokens: int, rank: str = "0", *, updates_only: bool = False
) -> Callable[[], None]:
    """Forwards of more than so many tokens do not fit, as on a rank's device that is too small."""

    def patch() -> None:
        if os.environ.get("RANK", "0") != rank:
            return
        real = llama.LlamaForCausalLM.forward

        def forward(self: Any, **kwargs: Any) -> Any:
            whole = not kwargs.get("use_cache")
            whole = whole and (torch.is_grad_enabled() or not updates_only)
            if whole and kwargs["input_ids"].numel() > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
            return real(self, **kwargs)

        setattr(llama.LlamaForCausalLM, "forward", forward)  # noqa: B010

    return patch


FAULTS: dict[str, Callable[[], None]] = {
    "full_disk": full_disk,
    "no_room": no_room,
    "little_memory": little_memory(120),
    "no_memory": little_memory(1, updates_only=True),
    "little_memory_on_the_second": little_memory(120, rank="1"),
    "little_memory_in_updates_of_the_second": little_memory(120, rank="1", updates_only=True),
}
if os.environ.get("FAULT"):
    FAULTS[os.environ["FAULT"]]()
