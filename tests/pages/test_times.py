"""Where the time went: shares of the steps, and what no timer covers."""

from __future__ import annotations

import pytest

from rlkit.pages.times import rest, times
from rlkit.runs.records import read_run
from tests.run_folders import records_of, remix_run, training


def test_the_parts_of_all_steps_and_the_evaluations_beside_them(tmp_path):
    found = times(read_run(remix_run(tmp_path / "r")))
    assert found is not None
    assert found.parts == dict.fromkeys(
        ("rollout", "reward", "forward", "update", "sync", "rest"), 1.0
    )
    assert found.steps == 6.0 and found.evaluations == 4.0
    assert found.share("update") == pytest.approx(1 / 6)


def test_the_shares_add_up_where_timers_overlap(tmp_path):
    """A generation that runs beside the update has its own seconds, within the step's."""
    found = times(records_of(tmp_path / "r", [training(1, time__rollout=1.5)]))
    assert found is not None and found.parts["rest"] == 0
    assert sum(map(found.share, found.parts)) == pytest.approx(1)


def test_what_was_never_timed_is_no_part(tmp_path):
    run = records_of(tmp_path / "r", [{"step": 1, "time/step": 2.0, "time/update": 1.5}])
    found = times(run)
    assert found is not None and found.parts == {"update": 1.5, "rest": 0.5}


@pytest.mark.parametrize("record", [{"step": 1}, {"step": 1, "time/step": float("nan")}])
def test_a_run_without_timed_steps_has_no_times(tmp_path, record):
    assert times(records_of(tmp_path / "r", [record])) is None


def test_the_rest_of_a_record_without_a_step_is_unknown():
    assert rest({"step": 0, "time/eval": 1.0}) is None
    assert rest({"step": 1, "time/step": 1.0}) == 1.0
