"""The comparison as a table of text and as CSV."""

from __future__ import annotations

import csv

import pytest

from rlkit.errors import UserError
from rlkit.pages.comparison import lines_of, read_runs, table_lines, write_csv
from rlkit.pages.figures import compare
from tests.pages.written import write_pair, write_run

FIVE = [0.4, 0.5, 0.6, 0.5, 0.5]


def test_the_table_of_two_groups_line_by_line(tmp_path):
    """Responses: a run of remix is above 0.1 + 0.9 * 0.8 only at its end, 40 responses in."""
    write_pair(tmp_path / "sweep", FIVE, [0.9] * 5)
    assert table_lines([tmp_path / "sweep"]) == [
        "eval/pass@1 at the end of 10 runs in 2 groups, with 95% intervals over seeds",
        "group       seeds  score                 responses to 0.82  seconds to 0.82"
        "  minus loss=grpo",
        "loss=grpo   5      0.500 [0.440, 0.560]  not reached        not reached",
        "loss=remix  5      0.900 [0.900, 0.900]  40                 8"
        "                +0.400 [+0.340, +0.460] better",
    ]


def test_an_unfinished_run_and_notes_are_told(tmp_path):
    short = write_run(tmp_path / "b", {0: 0.1, 2: 0.3}, steps=4)
    again = write_run(tmp_path / "c", {0: 0.1, 2: 0.2}, steps=4)
    lines = table_lines([again, short])
    assert "0.300 [0.108, 0.603] at step 2 of 4" in lines[2]
    assert lines[3] == f"Note: defaults: the same seed again, left out: {again}."


def test_a_group_without_gain_has_no_target(tmp_path):
    lines = table_lines([write_run(tmp_path / "a", {0: 0.3, 4: 0.3})])
    assert "responses to the target" in lines[1]
    assert lines[2].split()[-2:] == ["-", "-"]


def test_the_csv_file_has_unrounded_numbers(tmp_path):
    comparison = compare(read_runs(write_pair(tmp_path, FIVE, [1 / 3 + 0.5] * 5)))
    write_csv(comparison, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        grpo, remix = csv.DictReader(file)
    assert float(remix["score"]) == comparison.rows[1].score.value
    assert (grpo["seeds"], grpo["scores"]) == ("0 1 2 3 4", "0.4 0.5 0.6 0.5 0.5")
    assert (grpo["baseline"], grpo["difference"], grpo["responses_to_target"]) == ("", "", "")
    assert (remix["paired"], remix["verdict"], remix["steps_to_target"]) == ("true", "better", "4")
    found = comparison.rows[1].difference
    assert found is not None and float(remix["difference_low"]) == found.estimate.low


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    comparison = compare(read_runs(write_pair(tmp_path, [0.5], [0.7])))
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_csv(comparison, tmp_path / "taken" / "table.csv")
    assert lines_of(comparison)[0].startswith(
        "eval/pass@1 at the end of 2 runs in 2 groups, with 95% intervals over problems"
    )
