"""The figures of one group of runs, by hand."""

from __future__ import annotations

import pytest

from rlkit.pages.groups import RunGroup, grouped
from rlkit.pages.score import wilson
from rlkit.pages.scores import (
    default_target,
    finished_of,
    planned_steps,
    problem_interval,
    reached,
    scores_of,
)
from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, read_run
from tests.pages.written import write_run

SCORE = "eval/pass@1"


def group_of(*folders) -> RunGroup:
    (group,), _ = grouped([read_run(folder) for folder in folders])
    return group


def test_runs_that_came_to_their_end_count_or_all_if_none_did(tmp_path):
    whole = write_run(tmp_path / "a", {0: 0.1, 4: 0.5}, seed=0)
    short = write_run(tmp_path / "b", {0: 0.1, 2: 0.3}, seed=1, steps=4)
    assert list(finished_of(group_of(whole, short), SCORE).runs) == ["0"]
    assert list(finished_of(group_of(short), SCORE).runs) == ["1"]
    assert planned_steps(read_run(short)) == 4


def test_scores_are_those_of_the_last_step_that_all_have(tmp_path):
    runs = [
        write_run(tmp_path / "a", {0: 0.1, 2: 0.2, 4: 0.5}, seed=0, steps=8),
        write_run(tmp_path / "b", {0: 0.1, 2: 0.3}, seed=1, steps=8),
    ]
    assert scores_of(group_of(*runs), SCORE) == (2, {"0": 0.2, "1": 0.3})


def test_without_a_common_step_each_run_gives_its_last_score(tmp_path):
    runs = [
        write_run(tmp_path / "a", {3: 0.2}, seed=0, steps=8),
        write_run(tmp_path / "b", {2: 0.3}, seed=1, steps=8),
    ]
    assert scores_of(group_of(*runs), SCORE) == (2, {"0": 0.2, "1": 0.3})


def test_one_run_has_the_interval_of_its_problems(tmp_path):
    run = read_run(write_run(tmp_path / "a", {0: 0.1, 4: 0.3}))
    found = problem_interval(run, SCORE, 4)
    assert found is not None
    assert (found.value, found.n) == (0.3, 10)
    assert (found.low, found.high) == wilson(0.3, 10)


def test_what_is_no_mean_over_the_problems_has_no_interval(tmp_path):
    run = read_run(write_run(tmp_path / "a", {0: 0.1, 4: 0.3}))
    assert problem_interval(run, "reward/mean", 4) is None
    assert problem_interval(run, "eval/source/gsm8k/pass@1", 4) is None


def test_the_target_is_nine_tenths_of_the_best_gain(tmp_path):
    groups = [
        group_of(write_run(tmp_path / "a", {0: 0.1, 4: 0.3})),
        group_of(write_run(tmp_path / "b", {0: 0.2, 4: 0.7})),
    ]
    assert default_target(groups, SCORE, [[0.3], [0.7]]) == pytest.approx(0.2 + 0.9 * 0.5)
    assert default_target(groups[:1], SCORE, [[0.1]]) is None


def test_what_it_took_is_the_median_with_those_that_did_not_reach_it_last(tmp_path):
    group = group_of(
        write_run(tmp_path / "a", {0: 0.1, 2: 0.5, 4: 0.6}, seed=0),
        write_run(tmp_path / "b", {0: 0.1, 2: 0.2, 4: 0.5}, seed=1),
        write_run(tmp_path / "c", {0: 0.1, 2: 0.2, 4: 0.3}, seed=2),
    )
    for axis, median in ((ROLLOUTS, 40), (STEP, 4), (SECONDS, 8.0)):
        found = reached(group, SCORE, axis, 0.5)
        assert found is not None
        assert (found.median, found.runs) == (median, 2)
    found = reached(group, SCORE, STEP, 0.6)
    assert found is not None
    assert (found.median, found.runs) == (None, 1)


def test_what_is_not_known_is_not_stated(tmp_path):
    run = write_run(tmp_path / "a", {0: 0.1, 4: 0.5})
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace("time/step", "time/other"))
    group = group_of(run)
    assert reached(group, SCORE, SECONDS, 0.3) is None
    assert reached(group, SCORE, STEP, None) is None
