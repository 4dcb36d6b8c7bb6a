"""Scores with their intervals, and when shares of the gain were reached."""

from __future__ import annotations

import pytest

from rlkit.pages.score import all_progress, interval, named, problems_of, progress, wilson
from tests.run_folders import evaluation, records_of, training

CONFIG = "eval: {problems: 100}\n"


@pytest.mark.parametrize(
    ("share", "n", "ends"),
    [
        (0.5, 100, (0.403832, 0.596168)),  # statsmodels' proportion_confint(method="wilson")
        (0.0, 10, (0.0, 0.277533)),  # z^2 / (n + z^2)
        (1.0, 10, (0.722467, 1.0)),
    ],
)
def test_the_binomial_interval_is_wilsons(share, n, ends):
    assert wilson(share, n) == pytest.approx(ends, abs=1e-6)


def test_an_interval_that_was_logged_is_used():
    record = {"eval/pass@1": 0.5, "eval/pass@1_error": 0.1}
    assert interval(record, "eval/pass@1", 4) == pytest.approx((0.304004, 0.695996), abs=1e-6)
    record |= {"eval/pass@1_low": 0.2, "eval/pass@1_high": 0.9}
    assert interval(record, "eval/pass@1", 4) == (0.2, 0.9)


def test_an_error_of_0_says_nothing_of_the_interval():
    """All 10 problems wrong: the binomial interval still reaches z^2 / (10 + z^2) = 0.278."""
    record = {"eval/pass@1": 0.0, "eval/pass@1_error": 0.0}
    assert interval(record, "eval/pass@1", 10) == pytest.approx((0, 0.277533), abs=1e-6)


def test_an_interval_stays_within_what_a_share_can_be():
    record = {"a": 0.95, "a_error": 0.1, "b": 0.05, "b_error": 0.1, "c": 3.0}
    assert interval(record, "a", 4)[1] == 1.0 and interval(record, "b", 4)[0] == 0.0
    assert interval(record, "c", 4) == (3.0, 3.0)  # no share: nothing is known of its spread


def test_shares_of_the_gain_are_reached_at_the_first_evaluation_that_has_them(tmp_path):
    """0.2 to 0.6: half of the gain is 0.4, 80% of it 0.52, 90% of it 0.56."""
    scores = (0.2, 0.41, 0.3, 0.53, 0.6)
    records = [evaluation(0, scores[0])]
    for step in range(1, 5):
        records += [training(step), evaluation(step, scores[step])]
    found = progress(records_of(tmp_path / "r", records, config_yaml=CONFIG), "eval/pass@1")
    assert [(r.share, r.step, r.responses, r.seconds) for r in found.reached] == [
        (0.5, 1, 32, 1.5),
        (0.8, 3, 96, 4.5),
        (0.9, 4, 128, 6.0),
    ]
    assert [r.score for r in found.reached] == pytest.approx([0.4, 0.52, 0.56])
    assert found.evaluations == 5 and found.is_distinguishable
    assert (found.before.low, found.before.high) == pytest.approx(wilson(0.2, 100))
    assert (found.after.low, found.after.high) == pytest.approx(wilson(0.6, 100))


def test_a_share_that_is_met_exactly_is_reached(tmp_path):
    records = [evaluation(step, step / 4) for step in range(5)]  # 0.5 is half of the gain
    found = progress(records_of(tmp_path / "r", records), "eval/pass@1")
    assert [r.step for r in found.reached] == [2, 4, 4]


def test_the_best_score_is_told_apart_from_the_last(tmp_path):
    records = [evaluation(0, 0.2), evaluation(5, 0.7), evaluation(9, 0.3)]
    found = progress(records_of(tmp_path / "r", records, config_yaml=CONFIG), "eval/pass@1")
    assert (found.best.value, found.best_step, found.after.value) == (0.7, 5, 0.3)
    assert not found.is_distinguishable


@pytest.mark.parametrize("scores", [(0.5, 0.5), (0.5, 0.4), (0.5,)])
def test_without_a_gain_nothing_is_reached(tmp_path, scores):
    records = [evaluation(i, value) for i, value in enumerate(scores)]
    assert progress(records_of(tmp_path / "r", records), "eval/pass@1").reached == []


def test_values_that_are_not_finite_are_passed_over(tmp_path):
    records = [evaluation(0, float("nan")), evaluation(1, 0.2), evaluation(2, float("inf"))]
    (found,) = all_progress(records_of(tmp_path / "r", records))
    assert found.before.value == found.after.value == 0.2 and found.evaluations == 1
    only = [{"step": 0, "eval/pass@1": float("nan")}]
    assert all_progress(records_of(tmp_path / "s", only)) == []


def test_the_runs_own_task_comes_first_and_sources_are_parts_of_it(tmp_path):
    keys = ("eval/math500/pass@1", "eval/pass@1", "eval/source/a/pass@1", "eval/pass@4")
    run = records_of(tmp_path / "r", [{"step": 0, **dict.fromkeys(keys, 0.5)}])
    assert [p.key for p in all_progress(run)] == ["eval/pass@1", "eval/math500/pass@1"]
    assert named("eval/math500/pass@1") == "math500 pass@1"


@pytest.mark.parametrize(
    ("config", "problems"),
    [("eval: {problems: 7}", 7), ("eval: {}", 1), ("eval: 3", 1), ("eval: {problems: x}", 1)],
)
def test_how_many_problems_is_read_from_the_settings(tmp_path, config, problems):
    assert problems_of(records_of(tmp_path / "r", [training(1)], config_yaml=config)) == problems
