"""Defaults of rewards that a reward need not restate, and how one is weighed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlkit.interfaces import Reward, RewardConfig


class OwnReward(Reward):
    """Only its base."""

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        raise AssertionError


def test_what_is_optional_does_nothing() -> None:
    reward = OwnReward()
    assert reward.counts() == {} and reward.notes() == () and reward.itself is reward
    assert type(reward.config) is RewardConfig and reward.config.weight == 1
    reward.close()


class Penalty(RewardConfig):
    """A weight of its own."""

    weight: float = 0.25


def test_a_cost_with_a_limit_has_no_weight_besides() -> None:
    assert Penalty(limit=0.5).weight == 0.25, "the default is nobody's choice"
    with pytest.raises(ValueError, match="weight has no effect beside limit"):
        Penalty(limit=0.5, weight=1.0)
    with pytest.raises(ValueError, match="multiplier is that of a limit"):
        Penalty(multiplier=1.0)
    with pytest.raises(ValueError, match=r"multiplier=2.0 must be at most multiplier_max=1.0"):
        Penalty(limit=0.5, multiplier=2.0, multiplier_max=1.0)
