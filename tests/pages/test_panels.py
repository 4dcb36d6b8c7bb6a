"""Which plots a page shows for the metrics that a run has."""

from __future__ import annotations

from rlkit.pages.columns import Columns
from rlkit.pages.panels import QUESTIONS, payload
from rlkit.runs.records import read_run
from tests.run_folders import records_of, remix_run


def shown(folder, *records):
    """Question -> panel -> the keys of its lines."""
    found = payload(Columns.of(records_of(folder, [*records])))
    return {
        q["name"]: {p["name"]: [line["keys"] for line in p["lines"]] for p in q["panels"]}
        for q in found
    }


def test_every_panel_has_a_name_of_its_own():
    names = [panel.name for question in QUESTIONS for panel in question.panels]
    assert len(names) == len({*names})


def test_a_plot_without_a_metric_and_a_question_without_a_plot_are_left_out(tmp_path):
    assert shown(tmp_path / "r", {"step": 1, "policy/loss": 1.0, "time/sync": 2.0}) == {
        "stable": {"loss": [["policy/loss"]]},
        "time": {"seconds": [["time/sync"]]},
    }


def test_scores_are_told_apart_by_what_they_are(tmp_path):
    keys = (
        *("eval/pass@1", "eval/math500/pass@1", "eval/pass@8", "eval/math500/maj@8"),
        *("eval/greedy", "eval/source/gsm/pass@1", "eval/pass@1_error"),
    )
    found = shown(tmp_path / "r", {"step": 0, **{key: i / 10 for i, key in enumerate(keys)}})
    assert found["learns"] == {
        "score": [["eval/pass@1"], ["eval/math500/pass@1"]],
        "scores": [["eval/pass@8"], ["eval/math500/maj@8"], ["eval/greedy"]],
        "sources": [["eval/source/gsm/pass@1"]],
    }
    assert "others" not in found  # an error is drawn as its score's band


def test_ages_are_sorted_as_numbers_and_placed_between_the_youngest_and_the_oldest(tmp_path):
    keys = [f"policy/ratio_mean_age_{age}" for age in (10, 9, 0)]
    record = {"step": 1, **dict.fromkeys(keys, 1.0), "policy/ratio_mean": 1.0}
    (question,) = payload(Columns.of(records_of(tmp_path / "r", [record])))
    (panel,) = question["panels"]
    assert panel["lines"] == [
        {"keys": ["policy/ratio_mean"]},
        {"keys": ["policy/ratio_mean_age_0"], "age": 0, "ramp": 0.0},
        {"keys": ["policy/ratio_mean_age_9"], "age": 9, "ramp": 0.9},
        {"keys": ["policy/ratio_mean_age_10"], "age": 10, "ramp": 1.0},
    ]


def test_metrics_that_are_equal_everywhere_share_a_line(tmp_path):
    record = {"step": 1, "anchor/kl": 0.5, "anchor/kl_base": 0.5, "anchor/kl_previous": 0.25}
    found = shown(tmp_path / "r", record)
    assert found["stable"]["kl"] == [["anchor/kl", "anchor/kl_base"], ["anchor/kl_previous"]]
    later = shown(tmp_path / "s", record, {"step": 2, "anchor/kl": 0.5, "anchor/kl_base": 0.75})
    assert len(later["stable"]["kl"]) == 3


def test_failures_are_shown_once_there_are_some(tmp_path):
    none = {"step": 1, "reward/errors": 0.0, "reward/lost": 0.0}
    assert shown(tmp_path / "none", none) == {}
    some = shown(tmp_path / "some", none, {"step": 2, "reward/errors": 0.0, "reward/lost": 1.0})
    assert [*some["learns"]] == ["failures"]


def test_a_metric_that_no_plot_names_has_its_own_at_the_end(tmp_path):
    hostile = "</script>\u202e\n"
    found = shown(tmp_path / "r", {"step": 1, "mine/x": 1.0, hostile: 2.0, "run/processes": 2})
    assert found == {"others": {"other-0": [["mine/x"]], "other-1": [[hostile]]}}


def test_every_metric_of_a_run_is_in_a_plot(tmp_path):
    columns = Columns.of(read_run(remix_run(tmp_path / "r")))
    questions = payload(columns)
    keys = {k for q in questions for p in q["panels"] for line in p["lines"] for k in line["keys"]}
    quiet = {"reward/errors", "reward/timeouts", "reward/lost", "policy/skipped_steps"}
    assert {*columns.metrics} - keys == {*quiet, "time/step"}
    others = {p["title"] for q in questions if q["name"] == "others" for p in q["panels"]}
    assert others == {"schedule/rebirths", "schedule/stage"}


def test_a_stack_begins_with_generation_and_ends_with_the_rest(tmp_path):
    found = payload(Columns.of(read_run(remix_run(tmp_path / "r"))))
    (time,) = [q for q in found if q["name"] == "time"]
    (seconds,) = [p for p in time["panels"] if p["name"] == "seconds"]
    assert seconds["stacked"] is True
    assert [line["keys"] for line in seconds["lines"]] == [
        [f"time/{part}"] for part in ("rollout", "reward", "forward", "update", "sync", "rest")
    ]  # each its own, although all take 0.25 seconds
