"""The contract kit catches the mistakes it is there for, each with its sentence."""

from __future__ import annotations

import random
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

from algorithms.advantages.group_norm import GroupNorm
from algorithms.corrections.tis import TIS
from algorithms.ppo import PPO, PPOConfig
from anchors.base import BaseAnchor
from buffers.fifo import Fifo
from rlkit.batch import (
    AdvantageBatch,
    AdvantageOutput,
    Corrected,
    Group,
    LossBatch,
    LossOutput,
    PolicyTerms,
    Term,
)
from rlkit.interfaces import Phase, PolicyLoss, Progress, ReincarnationSchedule
from rlkit.plugins import KINDS
from rlkit.testing import CHECKS, check_part


def term(value: Tensor, batch: LossBatch) -> LossOutput:
    return LossOutput(terms=[Term(name="policy", value=value, mask=batch.mask)])


class LateMask(PolicyLoss):
    """The exponential is masked after the fact."""

    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        ratio = (policy.logp - batch.behavior_logp).exp()
        return term(torch.where(batch.mask, -ratio * batch.advantage, 0.0), batch)


class Overflow(PolicyLoss):
    """Masked in time, but never clamped."""

    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        delta = torch.where(batch.mask, policy.logp - batch.behavior_logp, 0.0)
        return term(-(2 * delta).exp() * batch.advantage, batch)


class Detached(PPO):
    """The policy's log-probs lose their gradient."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        return super().__call__(policy.detach(), batch)


class Whole(PPO):
    """Reads the whole minibatch but says that each row stands alone."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        out = super().__call__(policy, batch)
        delta = torch.where(batch.mask, policy.logp - batch.prox_logp, 0.0).detach()
        return term(out.terms[0].value * (1 + delta.square().sum()), batch)


class Silent(PPO):
    """Reads the behavior policy without naming it."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        weight = self.ratio(batch.prox_logp, batch.behavior_logp, batch.mask)
        return term(super().__call__(policy, batch).terms[0].value * weight, batch)


class Positional(PPO):
    """Weighs rows by their place in the batch."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        place = torch.arange(1, len(batch.mask) + 1)[:, None]
        return term(super().__call__(policy, batch).terms[0].value * place, batch)


class UndocumentedConfig(PPOConfig):
    knob: Annotated[float, Field(gt=0)] = 1.0


class Undocumented(PPO):
    Config = UndocumentedConfig


class Attached(TIS):
    """The weight carries the policy's gradient."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        return Corrected(batch=batch, weight=self_ratio(policy, batch))


def self_ratio(policy: PolicyTerms, batch: LossBatch) -> Tensor:
    return torch.where(batch.mask, policy.logp - batch.behavior_logp, 0.0).exp()


class ByBlocks(GroupNorm):
    """Takes each four neighboring rows for a group."""

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        centred = b.reward - b.reward.view(-1, 4).mean(-1).repeat_interleave(4)
        spread = torch.where(b.mask, centred[:, None], 0.0)
        return AdvantageOutput(advantage=spread, returns=spread)


class Unseeded(Fifo):
    """Draws from the global generator."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return fresh + random.sample(self.groups, min(batch - len(fresh), len(self.groups)))


class Forgetful(Fifo):
    """A checkpoint loses the stored groups."""

    def state_dict(self) -> dict[str, Any]:
        return {"groups": []}


class Repeating(Fifo):
    """Fills the batch with what is there, again and again."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return (fresh * batch)[:batch]


class Moving(BaseAnchor[Any]):
    """Keeps the policy itself rather than a frozen copy."""

    def rebase(self, policy: Any) -> None:
        self.frozen["base"] = policy


class Unrestored(BaseAnchor[Any]):
    """A resumed run starts from the policy it has."""

    def restore(self, policy: Any, state: dict[str, Any]) -> None:
        self.rebase(policy)


class Counting(ReincarnationSchedule):
    """Counts its calls and does not save the count."""

    calls = 0

    def phase(self, progress: Progress) -> Phase:
        self.calls += 1
        return Phase(name="early" if self.calls < 10 else "late")


class BareValue(ReincarnationSchedule):
    """Names a field without its section."""

    def phase(self, progress: Progress) -> Phase:
        return Phase(name="train", values={"beta": 0.1})


@pytest.mark.parametrize(
    ("kind", "part", "sentence"),
    [
        ("loss", LateMask, "mask before exp"),
        ("loss", Overflow, r"\+-50"),
        ("loss", Detached, "no gradient"),
        ("loss", Whole, "scope"),
        ("loss", Silent, "does not name 'behavior'"),
        ("loss", Positional, "order of the rows"),
        ("loss", Undocumented, "'knob' has no docstring"),
        ("correction", Attached, "detach it"),
        ("advantage", ByBlocks, "read the groups from b.group"),
        ("buffer", Unseeded, r"self\.rng\(step\)"),
        ("buffer", Forgetful, "a checkpoint changes how much is stored"),
        ("buffer", Repeating, "a sample twice"),
        ("anchor", Moving, "moves with the policy"),
        ("anchor", Unrestored, "restore"),
        ("schedule", Counting, "complete state_dict"),
        ("schedule", BareValue, "'beta' needs a dotted field name"),
    ],
)
def test_a_broken_part_is_told_what_is_wrong(kind: str, part: type[Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_part(kind, part())


def test_the_checks_that_passed_are_named() -> None:
    passed = check_part("loss", PPO())
    assert len(passed) == 2 + len(CHECKS["loss"])
    assert "masked positions change nothing" in passed


def test_every_kind_has_checks_of_its_own() -> None:
    assert CHECKS.keys() == set(KINDS) and all(CHECKS.values())
