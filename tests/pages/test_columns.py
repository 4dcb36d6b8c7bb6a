"""Metrics as columns: which row a value is in, how it is rounded, how a long run is thinned."""

from __future__ import annotations

import pytest

from rlkit.pages.columns import Columns, rounded
from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, TOKENS, read_run
from tests.run_folders import records_of, remix_run, training


def test_a_step_and_its_evaluation_share_a_row(tmp_path):
    payload = Columns.of(read_run(remix_run(tmp_path / "r"))).payload()
    assert payload["axes"] == {
        STEP: [0, 1, 2, 3, 4],
        ROLLOUTS: [0, 32, 64, 96, 128],
        TOKENS: [0, 320, 640, 960, 1280],
        SECONDS: [0, 1.5, 3, 4.5, 6],
    }
    pattern, values = payload["series"]["eval/pass@1"]
    assert payload["patterns"][pattern] == [0, 4] and values == [0.1, 0.6]
    pattern, values = payload["series"]["reward/mean"]
    assert payload["patterns"][pattern] == [1, 2, 3, 4] and values == [0.1, 0.2, 0.3, 0.4]
    assert len(payload["patterns"]) == 2


def test_an_axis_on_which_the_run_did_not_move_is_left_out(tmp_path):
    run = records_of(tmp_path / "r", [{"step": 1, "policy/loss": 1.0, "time/step": 2.0}])
    assert [*Columns.of(run).payload()["axes"]] == [STEP, SECONDS]


def test_the_rest_of_a_step_is_a_metric(tmp_path):
    payload = Columns.of(records_of(tmp_path / "r", [training(1)])).payload()
    assert payload["series"]["time/rest"][1] == [0.25]


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (1 / 3, 0.333333),
        (2.0, 2),
        (123456789, 123456789),
        (123456789.0, 123457000),
        (1e-9 / 3, 3.33333e-10),
        (float("nan"), None),
        (float("-inf"), None),
        (10**400, None),
        (True, 1),
    ],
)
def test_numbers_have_six_digits_and_counts_all_of_theirs(value, short):
    found = rounded(value)
    assert found == short and type(found) is type(short)


def test_a_very_long_run_is_thinned_to_means_maxima_and_last_steps(tmp_path):
    rows = [
        {"step": i, "a/mean": float(i), "a/ratio_max": float(i % 3), "rollouts/total": 10 * i}
        for i in range(1, 8)
    ]
    columns = Columns.of(records_of(tmp_path / "r", rows), most=3)
    assert columns.per_row == 3
    payload = columns.payload()
    assert payload["axes"][STEP] == [3, 6, 7] and payload["axes"][ROLLOUTS] == [30, 60, 70]
    assert payload["series"]["a/mean"][1] == [2, 5, 7]
    assert payload["series"]["a/ratio_max"][1] == [2, 2, 1]
    assert [columns.row_of(step) for step in (1, 3, 4, 7)] == [0, 0, 1, 2]


def test_a_run_is_thinned_only_beyond_the_most_rows(tmp_path):
    rows = [{"step": i, "a/b": 1.0} for i in range(1, 5)]
    run = records_of(tmp_path / "r", rows)
    assert [Columns.of(run, most=most).per_row for most in (3, 4, 5)] == [2, 1, 1]
