"""Compositions to be examined: of tiny models in memory, with engines and rewards that are broken
on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from rlkit.composition.composition import Given
from rlkit.composition.doctor.check import Check
from rlkit.composition.doctor.patient import Patient
from rlkit.interfaces import Task, TaskConfig, TaskData
from rlkit.models.policy import Policy
from rlkit.rewards.function import reward_class
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.hf import HFRollout
from tests.compositions import composed
from tests.steps import ROWS, has_one
from tests.tiny import make_policy

Change = Callable[["Changing", GenerationCall, list[list[Generation]]], list[list[Generation]]]


class Rows(Task):
    """Rows of its own."""

    def __init__(self, rows: Sequence[Any], **settings: Any) -> None:
        super().__init__(TaskConfig.model_validate(settings))
        self.data = TaskData(train=rows, eval=rows)

    def load(self, seed: int) -> TaskData:
        return self.data


class Changing(HFRollout):
    """Returns what `change` makes of its responses."""

    change: Change

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        return type(self).change(self, call, super().generate(call))


def changing(change: Change) -> type[Changing]:
    """The engine class of a change."""
    return type("Changed", (Changing,), {"change": staticmethod(change)})


def each(
    change: Callable[[torch.Tensor], torch.Tensor],
    where: Callable[[GenerationCall, Generation], bool] = lambda call, generation: True,
) -> Change:
    """A change of every response's log-probs [T], where it applies."""

    def changed(
        engine: Changing, call: GenerationCall, groups: list[list[Generation]]
    ) -> list[list[Generation]]:
        return [
            [replace(g, logp=change(g.logp.clone())) if where(call, g) else g for g in group]
            for group in groups
        ]

    return changed


def patient_of(
    *overrides: str,
    policy: Policy | None = None,
    rows: Sequence[Any] = ROWS,
    change: Change | None = None,
    reward: Callable[..., Any] | None = has_one,
    seconds: float = 60.0,
    **task: Any,
) -> Patient:
    """A patient of the tiny policy, which answers with at most 24 tokens."""
    policy = policy or make_policy()
    c = composed(
        "model.name=tiny",
        "reward=[exact]",
        "rollout.max_completion_length=24",
        "rollout.max_prompt_length=512",
        "train.prompts_per_step=4",
        "train.minibatches=2",
        *overrides,
    )
    rewards = {"own": reward_class(reward)()} if reward is not None else c.rewards
    engine = c.engine if change is None else changing(change)(c.engine.config)
    c = replace(
        c,
        given=Given(model=policy.model, tokenizer=policy.tokenizer),
        task=(given := Rows(rows, **task)),
        eval_task=given,
        rewards=rewards,
        eval_rewards=rewards,
        engine=engine,
        rollouts=engine,
    )
    return Patient(c, seconds)


def text(check: Check) -> str:
    """All it says."""
    return f"{check.verdict}: {check.finding} -> {check.advice}"
