"""What a firing does."""

from __future__ import annotations

import itertools

import pytest

from schedules.events import EventsConfig

EVENTS = ("rebase", "clear_buffer", "reset_optimizer")


@pytest.mark.parametrize("chosen", list(itertools.product([False, True], repeat=3)))
def test_the_events_are_those_that_are_set(chosen: tuple[bool, bool, bool]) -> None:
    found = EventsConfig(**dict(zip(EVENTS, chosen, strict=True))).events()
    assert found == {event for event, fires in zip(EVENTS, chosen, strict=True) if fires}


def test_by_default_the_policy_becomes_its_base_and_nothing_is_forgotten() -> None:
    assert EventsConfig().events() == {"rebase"}
