"""A rebirth when the evaluation stalls, and ProRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.registry import build
from tests.certain import HALF
from tests.cli import SMALL, metrics, run
from tests.schedules.firing import at


def firings(schedule: Any, scores: list[float]) -> list[int]:
    """The steps in which it fires, with an evaluation after each step (the first before step 1)."""
    phases = [schedule.phase(at(i + 1, score, i)) for i, score in enumerate(scores)]
    return [i + 1 for i, phase in enumerate(phases) if phase.events]


def test_a_plateau_fires_once_after_patience_evaluations_that_are_not_better() -> None:
    """0.5 is the best; 0.5049 is within min_delta; the third in a row fires."""
    scores = [0.1, 0.5, 0.5049, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    schedule = build("schedule", "plateau", patience=3, cooldown=0, min_delta=0.005)
    assert firings(schedule, scores) == [5]
    phase = schedule.phase(at(50, 0.5, 9))
    assert (phase.name, phase.replay, phase.updates_per_batch) == ("after", False, 1)
    better = build("schedule", "plateau", patience=3, cooldown=0, min_delta=0.004)
    assert firings(better, scores) == [6], "0.5049 is better by more than 0.004: one later"


def test_the_cooldown_leaves_evaluations_out_and_the_search_begins_anew() -> None:
    schedule = build("schedule", "prorl", patience=2, cooldown=2)
    assert firings(schedule, [0.5] * 12) == [3, 8]
    """Step 3; evaluations 4 and 5 do not count; 6 is the new best; 7 and 8 are not better."""
    phase = schedule.phase(at(20, 0.5, 20))
    assert phase.replay and phase.updates_per_batch is None


def test_an_evaluation_is_looked_at_once() -> None:
    schedule = build("schedule", "plateau", patience=1)
    steps = [schedule.phase(at(step, 0.5, 0)).name for step in range(1, 20)]
    assert set(steps) == {"before"}


def test_its_state_continues_it() -> None:
    scores = [0.1, 0.5, 0.5, 0.4, 0.5, 0.5, 0.3, 0.2]
    for cut in range(len(scores)):
        whole, part, rest = (build("schedule", "prorl", patience=2, cooldown=1) for _ in range(3))
        expected = firings(whole, scores)
        first = firings(part, scores[:cut])
        rest.load_state_dict(part.state_dict())
        later = [
            i + 1 for i in range(cut, len(scores)) if rest.phase(at(i + 1, scores[i], i)).events
        ]
        assert first + later == expected


def test_an_unknown_metric_is_named() -> None:
    schedule = build("schedule", "plateau", metric="eval/pas@1")
    with pytest.raises(UserError, match=r"no 'eval/pas@1'.*Did you mean 'eval/pass@1'"):
        schedule.phase(at(1, 0.5, 0))


@pytest.mark.slow
def test_a_run_whose_evaluation_stalls_is_reborn(tmp_path: Path) -> None:
    """Half of the responses succeed whatever they say: every evaluation is the same."""
    result = run(
        *SMALL,
        *("algorithm=remix", "schedule=plateau", "schedule.patience=2", "train.steps=4"),
        *(HALF, "eval.every=1", "output_dir=out"),
        cwd=tmp_path,
    )
    assert result.status == 0, result.err
    rows = [r for r in metrics(tmp_path / "out") if "policy/loss" in r]
    assert [r["schedule/rebirths"] for r in rows] == [0, 0, 1, 1]
    assert [r["schedule/phase"] for r in rows] == [0, 0, 1, 1]
    assert rows[1]["buffer/fresh_fraction"] < 1 and rows[2]["buffer/fresh_fraction"] == 1
