"""Each check of a schedule catches one that is broken in its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlkit.interfaces import Phase, Progress, ReincarnationSchedule, State
from rlkit.testing import schedules as kit


class Sound(ReincarnationSchedule):
    """Counts its calls, and saves the count."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.calls = 0

    def phase(self, progress: Progress) -> Phase:
        self.calls += 1
        return Phase(name="early" if self.calls < 10 else "late", values={"anchor.beta": 0.5})

    def state_dict(self) -> State:
        return {"calls": self.calls}

    def load_state_dict(self, state: State) -> None:
        self.calls = state["calls"]


class Forgetful(Sound):
    """Does not save it."""

    def state_dict(self) -> State:
        return {"calls": 0}


def says(**phase: Any) -> type[Sound]:
    """A schedule whose every phase is this one."""

    class Saying(Sound):
        def phase(self, progress: Progress) -> Phase:
            return Phase(**{"name": "x", **phase})

    return Saying


@pytest.mark.parametrize(
    ("check", "broken", "sentence"),
    [
        (kit.every_phase_can_be_carried_out, says(name=""), "a phase has no name"),
        (kit.every_phase_can_be_carried_out, says(updates_per_batch=0), "updates_per_batch=0"),
        (kit.every_phase_can_be_carried_out, says(values={"beta": 1.0}), "dotted field name"),
        (
            kit.every_phase_can_be_carried_out,
            says(values={"anchor.beta": float("inf")}),
            "is not finite",
        ),
        (kit.a_resumed_schedule_gives_the_same_phases, Forgetful, "phase of step 10 differs"),
    ],
)
def test_a_broken_schedule_is_told_what_is_wrong(
    check: Callable[[Any], None], broken: type[Sound], sentence: str
) -> None:
    check(Sound())
    with pytest.raises(AssertionError, match=sentence):
        check(broken())


def test_the_run_gets_better_and_then_stalls() -> None:
    scores = [kit.progress(step).eval["eval/pass@1"] for step in range(1, kit.STEPS + 1)]
    half = kit.STEPS // 2
    assert scores[:half] == sorted(set(scores)) and set(scores[half - 1 :]) == {scores[-1]}
    assert kit.progress(3).rollouts == 128 and kit.progress(3).eval_step == 2
