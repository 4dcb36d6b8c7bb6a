"""The single switch by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.interfaces import Phase
from rlkit.registry import build
from rlkit.testing.schedules import progress


def phases(**fields: Any) -> dict[int, Phase]:
    schedule = build("schedule", "reincarnate", at=3, **fields)
    return {step: schedule.phase(progress(step)) for step in range(1, 7)}


def test_replay_stops_after_the_switch_with_one_pass_a_batch() -> None:
    found = phases()
    assert [found[s].name for s in found] == ["mix"] * 3 + ["on_policy"] * 3
    assert [found[s].replay for s in found] == [True] * 3 + [False] * 3
    assert [found[s].updates_per_batch for s in found] == [None] * 3 + [1] * 3


@pytest.mark.parametrize(
    ("fields", "events"),
    [
        ({}, {"rebase", "clear_buffer"}),
        ({"clear_buffer": False}, {"rebase"}),
        ({"reset_optimizer": True}, {"rebase", "clear_buffer", "reset_optimizer"}),
    ],
)
def test_the_events_fire_once_in_the_step_after_at(
    fields: dict[str, bool], events: set[str]
) -> None:
    found = phases(**fields)
    assert found[4].events == events
    assert all(not found[step].events for step in (1, 2, 3, 5, 6))


def test_the_passes_after_the_switch_can_be_chosen() -> None:
    assert phases(updates_after=4)[5].updates_per_batch == 4
    assert phases(updates_after=None)[5].updates_per_batch is None


def test_a_run_resumed_after_the_switch_does_not_switch_again() -> None:
    schedule = build("schedule", "reincarnate", at=3)
    schedule.load_state_dict({})
    assert schedule.phase(progress(5)) == phases()[5]
