"""What deserves a look: each threshold at and beside its value."""

from __future__ import annotations

import math
import re

import pytest

from rlkit.pages.alarms import ENOUGH, FAILED, LIMITS, SOLVED, START, alarms, measured
from rlkit.pages.columns import MOST_ROWS
from rlkit.pages.questions import QUESTIONS
from rlkit.runs.checkpoint import write_checkpoint
from tests.cli import ROOT
from tests.run_folders import evaluation, records_of, training

BY_NAME = {limit.key: limit for limit in LIMITS}


def titles(folder, records, **files):
    return [a.title for a in alarms(records_of(folder, records, **files))]


def steps(key, values):
    return [training(i, **{key.replace("/", "__"): v}) for i, v in enumerate(values, start=1)]


def test_a_healthy_run_has_no_alarm_and_says_what_was_looked_at(tmp_path):
    run = records_of(tmp_path / "r", [training(step) for step in range(1, 30)])
    assert alarms(run) == []
    assert measured(run) == ["clipped tokens", "effective sample size", "entropy", "cut responses"]


@pytest.mark.parametrize(
    ("key", "limit", "above"),
    [
        ("policy/clip_fraction", 0.3, True),
        ("off_policy/ess", 0.3, False),
        ("off_policy/engine_kl", 0.01, True),
        ("completions/clipped_ratio", 0.2, True),
    ],
)
def test_a_value_beyond_its_limit_is_an_alarm_and_the_limit_itself_is_not(
    tmp_path, key, limit, above
):
    beyond = math.nextafter(limit, 1.0 if above else 0.0)
    assert titles(tmp_path / "at", steps(key, [limit] * 4)) == []
    assert titles(tmp_path / "beyond", steps(key, [beyond] * 4)) == [BY_NAME[key].title]


def test_the_entropy_is_held_to_what_it_began_with(tmp_path):
    start = [0.5, 1.5, 1.0, 0.25, 1.75]  # mean 1
    assert len(start) == START
    assert titles(tmp_path / "at", steps("policy/entropy", [*start, 0.1])) == []
    below = steps("policy/entropy", [*start, math.nextafter(0.1, 0)])
    assert titles(tmp_path / "below", below) == ["The entropy collapsed"]


def test_a_low_entropy_is_no_alarm_where_the_task_is_solved(tmp_path):
    low = steps("policy/entropy", [1.0] * START + [0.01] * 5)
    for score, found in ((0.9, []), (0.89, ["The entropy collapsed"])):
        rows = [*low, evaluation(10, score)]
        assert titles(tmp_path / str(score), rows) == found


def test_it_takes_one_step_in_twenty(tmp_path):
    assert ENOUGH == 1 / 20
    one = steps("policy/clip_fraction", [0.1] * 19 + [0.4])
    assert titles(tmp_path / "enough", one) == ["Many tokens are clipped"]
    fewer = steps("policy/clip_fraction", [0.1] * 20 + [0.4])
    assert titles(tmp_path / "fewer", fewer) == []


def test_an_alarm_says_how_often_since_when_and_how_bad(tmp_path):
    run = records_of(tmp_path / "r", steps("policy/clip_fraction", [0.1, 0.35, 0.5, 0.2]))
    (found,) = alarms(run)
    assert found.words.startswith(
        "In 2 of 4 steps, first in step 2, more than 30% of the tokens were clipped (highest: 0.5)."
    )
    assert found.panel == "clip"


def test_a_low_limit_tells_the_lowest_value(tmp_path):
    (found,) = alarms(records_of(tmp_path / "r", steps("off_policy/ess", [0.9, 0.2, 0.1])))
    assert "(lowest: 0.1)" in found.words and "first in step 2" in found.words


def test_values_that_are_not_finite_are_their_own_alarm_and_count_nowhere_else(tmp_path):
    values = [0.1, float("nan"), float("inf")]
    run = records_of(tmp_path / "r", steps("policy/clip_fraction", values))
    (found,) = alarms(run)
    assert found.title == "Some values are not finite" and found.panel == ""
    assert found.words.startswith("policy/clip_fraction had")


def test_many_metrics_that_are_not_finite_are_counted(tmp_path):
    rows = [{"step": 1, **{f"a/{i}": float("nan") for i in range(5)}}]
    (found,) = alarms(records_of(tmp_path / "r", rows))
    assert found.words.startswith("a/0, a/1, a/2 and 2 more had")


def test_failed_rewards_are_an_alarm_above_one_response_in_a_hundred(tmp_path):
    """A step generates 32 responses: 100 steps with 32 failures are exactly one in a hundred."""

    def failing(count):
        kinds = ("reward/errors", "reward/timeouts", "reward/unparsed")
        rows = [training(step) for step in range(1, 101)]
        for i in range(count):
            rows[i][kinds[i % 3]] = 1.0
        return rows

    assert titles(tmp_path / "at", failing(32)) == []
    (found,) = alarms(records_of(tmp_path / "above", failing(33)))
    assert found.title == "Rewards failed" and found.panel == "failures"
    assert found.words.startswith("11 errors, 11 timeouts, 11 unparsed for 3,200 responses.")


def test_any_skipped_update_is_an_alarm(tmp_path):
    rows = [training(step) for step in range(1, 101)]
    rows[3]["policy/skipped_steps"] = 2
    (found,) = alarms(records_of(tmp_path / "r", rows))
    assert found.title == "Updates were skipped" and found.words.startswith("2 updates")


@pytest.mark.parametrize("rollout", ["{name: layer_skip}", "{name: hf, behavior: props}"])
def test_an_engine_that_is_meant_to_differ_is_no_alarm(tmp_path, rollout):
    rows = steps("off_policy/engine_kl", [1.0] * 8)
    run = records_of(tmp_path / "own", rows, config_yaml=f"rollout: {rollout}")
    assert alarms(run) == [] and "engine against trainer" not in measured(run)
    plain = records_of(tmp_path / "hf", rows, config_yaml="rollout: {name: hf, behavior: policy}")
    assert [a.title for a in alarms(plain)] == ["The engine disagrees with the trainer"]
    assert "engine against trainer" in measured(plain)


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        ((), "There is no checkpoint of that step."),
        ((1, 2), "checkpoint-1 has those weights."),
        ((2, 4), "There is no checkpoint of that step, the nearest is checkpoint-2:"),
    ],
)
def test_a_lost_best_score_says_where_its_weights_are(tmp_path, saved, told):
    rows = [evaluation(0, 0.2), evaluation(1, 0.9), evaluation(2, 0.1)]
    run = records_of(tmp_path / "r", rows, config_yaml="eval: {problems: 100}")
    for step in saved:
        write_checkpoint(run.path, step, lambda folder: None)
    (alarm,) = alarms(run)
    assert told in alarm.words


def test_a_last_score_below_the_best_is_an_alarm_where_their_intervals_part(tmp_path):
    """Of 100 problems: 0.5 has [0.404, 0.596], 0.70 has [0.604, 0.781], 0.69 has [0.594, 0.772]."""
    config = "eval: {problems: 100}\n"
    for best, found in ((0.69, []), (0.70, ["The best score was lost again"])):
        rows = [evaluation(0, 0.2), evaluation(1, best), evaluation(2, 0.5)]
        assert titles(tmp_path / str(best), rows, config_yaml=config) == found


def test_every_warning_is_in_the_docs():
    page = (ROOT / "docs" / "report.md").read_text()
    for limit in LIMITS:
        assert f"| {limit.title} | {limit.what} |" in page
    assert f"the last held-out score is {SOLVED} or more" in page
    assert f"more than {FAILED:.0%} of all responses" in page
    assert f"more than {MOST_ROWS:,} steps" in page


def test_every_alarm_links_to_a_plot_of_its_metric():
    plots = {p.name: p for q in QUESTIONS for p in q.panels}
    for limit in LIMITS:
        assert re.fullmatch(plots[limit.panel].keys, limit.key)
    assert {"failures", "skipped", "score"} <= plots.keys()
