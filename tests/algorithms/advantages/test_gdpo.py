"""GDPO by hand."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import AdvantageOutput
from rlkit.errors import UserError
from rlkit.registry import build
from tests.algorithms.advantages.hand import batch_of, one_a_row


def two_rewards(**fields: Any) -> AdvantageOutput:
    b = batch_of([1.0, 0.0, 2.0, 2.0], [0] * 4)
    a, c = (torch.tensor(r, dtype=torch.float64) for r in ([1, 0, 0, 0], [0, 0, 2, 2]))
    return build("advantage", "gdpo", **fields)(replace(b, rewards={"a": a, "c": c}))


@pytest.mark.parametrize("weights", [{}, {"a": 2.0}, {"a": 0.0, "c": 3.0}, {"c": -1.0}])
def test_gdpo_adds_normalized_rewards(weights: dict[str, float]) -> None:
    """a = 1 0 0 0: centred 3/4, -1/4, std 1/2; c = 0 0 2 2: centred -1, 1, std sqrt(4/3)."""
    wa, wc = weights.get("a", 1.0), weights.get("c", 1.0)
    x, y = 0.5, (4 / 3) ** 0.5
    total = [
        wa * a / (x + 1e-4) + wc * c / (y + 1e-4)
        for a, c in zip([0.75, -0.25, -0.25, -0.25], [-1, -1, 1, 1], strict=True)
    ]
    spread = statistics.stdev(total) + 1e-4
    found = one_a_row(two_rewards(weights=weights))
    assert found == pytest.approx([v / spread for v in total])


def test_gdpo_eps_is_added_to_each_standard_deviation() -> None:
    narrow, wide = (one_a_row(two_rewards(eps=e)) for e in (1e-9, 1.0))
    total = [
        a / 1.5 + c / ((4 / 3) ** 0.5 + 1)
        for a, c in zip([0.75, -0.25, -0.25, -0.25], [-1, -1, 1, 1], strict=True)
    ]
    assert wide == pytest.approx([v / (statistics.stdev(total) + 1) for v in total])
    assert statistics.stdev(narrow) == pytest.approx(1)


def test_gdpo_takes_the_rewards_own_weights_unless_it_has_others() -> None:
    """Of a reward with a limit it is minus the multiplier."""
    b = batch_of([0.0] * 4, [0] * 4)
    a, c = (torch.tensor(r, dtype=torch.float64) for r in ([1, 0, 0, 0], [0, 0, 2, 2]))
    own = {"a": torch.full((4,), 2.0), "c": torch.full((4,), -0.5)}
    b = replace(b, rewards={"a": a, "c": c}, reward_weights=own)
    expected = two_rewards(weights={"a": 2.0, "c": -0.5})
    assert one_a_row(build("advantage", "gdpo")(b)) == pytest.approx(one_a_row(expected))
    expected = two_rewards(weights={"a": 3.0, "c": -0.5})
    found = build("advantage", "gdpo", weights={"a": 3.0})(b)
    assert one_a_row(found) == pytest.approx(one_a_row(expected))


def test_gdpo_normalizes_a_reward_over_the_responses_it_applies_to() -> None:
    """a = 1 0 over the first two alone: +-1/2 over std sqrt(1/2); the others have none of it."""
    b = batch_of([0.0] * 4, [0] * 4)
    a, c = (torch.tensor(r, dtype=torch.float64) for r in ([1, 0, 0, 0], [0, 0, 2, 2]))
    applies = {"a": torch.tensor([True, True, False, False])}
    b = replace(b, rewards={"a": a, "c": c}, reward_applies=applies)
    x, y = 0.5 / (0.5**0.5 + 1e-4), 1 / ((4 / 3) ** 0.5 + 1e-4)
    total = [x - y, -x - y, y, y]
    spread = statistics.stdev(total) + 1e-4
    found = one_a_row(build("advantage", "gdpo")(b))
    assert found == pytest.approx([v / spread for v in total])


def test_gdpo_tells_apart_what_a_sum_of_rewards_hides() -> None:
    """Responses 0 and 2 have the sums 1 and 2 here; each reward's spread decides instead."""
    found = one_a_row(two_rewards())
    assert found[0] > found[2] == found[3] > found[1]


def test_gdpo_refuses_a_weight_for_a_reward_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"advantage\.weights names the reward 'b'.*a, c"):
        two_rewards(weights={"b": 1.0})
