"""SPEAR's advantages: the running median, who enters it, and what is left of replayed responses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.advantages import examples
from rlkit.testing.base import stored
from tests.algorithms.advantages.hand import batch_of, one_a_row


def part_stored(rewards: list[float], group: list[int], replayed: list[int]) -> AdvantageBatch:
    """The weights lag: the fresh responses are old, and stored ones are new."""
    stored = torch.tensor(replayed).bool()
    return replace(batch_of(rewards, group), replayed=stored, age=(~stored).long())


def baseline(out: AdvantageOutput) -> float:
    return out.metrics["advantage/baseline"]


def test_replayed_responses_are_compared_with_the_median_of_the_new_groups_means() -> None:
    """Means 0.5, 0 and 2: the median is 0.5. Replayed 1.5, 0.25 and 0.5 keep 1 and exactly 0."""
    b = part_stored([1, 0, 0, 0, 3, 1, 1.5, 0.25], [0, 0, 1, 1, 2, 2, 3, 3], [0] * 6 + [1, 1])
    out = build("advantage", "spear")(b)
    assert baseline(out) == 0.5
    assert one_a_row(out) == [0.5, -0.5, 0, 0, 1, -1, 1, 0]
    assert torch.equal(out.returns, b.reward[:, None].expand(8, 2))


def test_a_replayed_response_at_the_baseline_or_below_it_gets_exactly_nothing() -> None:
    """However far below: what is no longer good is not pushed down either."""
    out = build("advantage", "spear")(
        part_stored([1, 0, 0.5, 0.1, -9], [0, 0, 1, 1, 2], [0, 0, 1, 1, 1])
    )
    assert one_a_row(out)[2:] == [0, 0, 0]


def test_new_responses_get_the_group_mean_advantage() -> None:
    """Beside replayed groups, and without any."""
    b = examples()
    for old in (torch.zeros_like(b.replayed), b.group == 1):
        new = replace(b, replayed=old)
        found, expected = (build("advantage", n)(new).advantage for n in ("spear", "group_mean"))
        assert torch.equal(found[~old], expected[~old]) and expected[~old].any()


def test_settings_of_the_group_baseline_hold_for_new_responses() -> None:
    b = part_stored([1, 0, 0, 3, 5], [0, 0, 0, 0, 1], [0] * 5)
    for fields in ({"std": "group"}, {"singleton": "zero"}):
        found, expected = (build("advantage", n, **fields)(b) for n in ("spear", "group_mean"))
        assert torch.equal(found.advantage, expected.advantage)


@pytest.mark.parametrize(
    ("quantile", "expected"), [(0.0, 0.0), (0.25, 0.75), (0.5, 1.5), (0.9, 2.7), (1.0, 3.0)]
)
def test_the_quantile_lies_between_neighbors(quantile: float, expected: float) -> None:
    """Means 0, 1, 2, 3: quantile q is at place 3 q; the median of an even number is the middle."""
    b = part_stored([3, 3, 0, 0, 2, 2, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3], [0] * 8)
    assert baseline(build("advantage", "spear", quantile=quantile)(b)) == pytest.approx(expected)


def test_only_new_groups_are_remembered() -> None:
    """A replayed group leaves no mean; a group of both leaves that of its new responses."""
    part = build("advantage", "spear")
    part(part_stored([1, 0, 9, 9], [0, 0, 1, 1], [0, 0, 1, 1]))
    assert list(part.means) == [0.5]
    part(part_stored([1, 2, 9], [4, 4, 4], [0, 0, 1]))
    assert list(part.means) == [0.5, 1.5]


def test_before_the_first_new_group_the_baseline_is_zero() -> None:
    out = build("advantage", "spear")(part_stored([2, -1], [0, 0], [1, 1]))
    assert baseline(out) == 0 and one_a_row(out) == [2, 0]


def test_this_steps_means_count_already_and_those_of_other_steps_still() -> None:
    part = build("advantage", "spear")
    assert baseline(part(part_stored([1, 1], [0, 0], [0, 0]))) == 1
    assert baseline(part(part_stored([3, 3], [0, 0], [0, 0]))) == 2
    assert baseline(part(part_stored([0, 0], [0, 0], [0, 0]))) == 1


def test_the_oldest_means_leave_beyond_the_history() -> None:
    """Of means 1, 2, 3, 4, 5 the last three stay, in a step's groups and over steps."""
    part = build("advantage", "spear", history=3)
    b = part_stored([1, 1, 2, 2, 3, 3, 4, 4], [0, 0, 1, 1, 2, 2, 3, 3], [0] * 8)
    assert baseline(part(b)) == 3 and list(part.means) == [2, 3, 4]
    assert baseline(part(part_stored([5, 5], [0, 0], [0, 0]))) == 4 and list(part.means) == [
        3,
        4,
        5,
    ]
    assert build("advantage", "spear").config.history == 10_240


def step(number: int) -> AdvantageBatch:
    """New and replayed groups of four, with rewards of their own in each step."""
    generator = torch.Generator().manual_seed(number)
    rewards = torch.rand(8, generator=generator, dtype=torch.float64)
    return replace(batch_of(rewards.tolist(), [0] * 4 + [1] * 4), replayed=torch.arange(8) > 3)


def test_a_resumed_run_gives_the_same_next_twenty_advantages() -> None:
    """Through a checkpoint, at the end of the history, so that what leaves first matters."""
    part = build("advantage", "spear", history=6)
    for number in range(9):
        part(step(number))
    again = build("advantage", "spear", history=6)
    again.load_state_dict(stored(part.state_dict()))
    for number in range(9, 29):
        a, b = part(step(number)), again(step(number))
        assert torch.equal(a.advantage, b.advantage) and a.metrics == b.metrics
    alone = build("advantage", "spear", history=6)
    assert baseline(alone(step(9))) != baseline(part(step(9)))


def test_the_saved_state_stands_still_and_so_does_what_was_loaded() -> None:
    part, again = build("advantage", "spear"), build("advantage", "spear")
    part(step(0))
    state = part.state_dict()
    again.load_state_dict(state)
    again(step(1))
    part(step(2))
    assert state == {"means": [pytest.approx(float(step(0).reward[:4].mean()))]}


@pytest.mark.parametrize("fields", [{"history": 0}, {"quantile": 1.1}, {"quantile": -0.1}])
def test_settings_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("advantage", "spear", **fields)
