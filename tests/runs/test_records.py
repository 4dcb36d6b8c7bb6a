"""What is read back from a run's folder."""

from __future__ import annotations

import json

import pytest

from rlkit.errors import UserError
from rlkit.runs.records import ROLLOUTS, SECONDS, TOKENS, read_run
from tests.run_folders import evaluation, records_of, remix_run, training, write_run


def test_every_record_knows_the_responses_tokens_and_training_seconds_before_it(tmp_path):
    run = read_run(remix_run(tmp_path / "r"))
    assert run.series("eval/pass@1", ROLLOUTS) == ([0, 128], [0.1, 0.6])
    assert run.series("eval/pass@1", TOKENS) == ([0, 1280], [0.1, 0.6])
    assert run.series("eval/pass@1", SECONDS) == ([0.0, 6.0], [0.1, 0.6])
    assert run.series("reward/mean") == ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4])


def test_keys_are_matched_whole_and_ages_are_sorted_as_numbers(tmp_path):
    keys = ("policy/ratio_mean_age_10", "policy/ratio_mean_age_9", "policy/ratio_mean")
    run = records_of(tmp_path / "r", [{"step": 1, **dict.fromkeys(keys, 1.0)}])
    assert run.keys(r"policy/ratio_mean(_age_\d+)?") == [*reversed(keys)]
    assert run.keys("policy/ratio") == []


def test_a_rebirth_is_where_the_count_grows(tmp_path):
    run = read_run(remix_run(tmp_path / "r"))
    assert run.rebirths("step") == [3]
    assert run.rebirths(ROLLOUTS) == [96]


def test_a_count_that_begins_above_0_rises_at_its_first_record(tmp_path):
    counts = enumerate((0, 0, 1, 1, 3), start=1)
    run = records_of(tmp_path / "r", [{"step": i, "schedule/stage": n} for i, n in counts])
    assert run.rises("schedule/stage") == [3, 5]
    late = records_of(tmp_path / "s", [{"step": 1, "schedule/stage": 2}])
    assert late.rises("schedule/stage") == [1]


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    run_dir = write_run(tmp_path / "r", [training(1)])
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "reward/me')
    assert [r["step"] for r in read_run(run_dir).records] == [1]


def test_what_is_not_a_number_is_left_out(tmp_path):
    row = {"step": 1, "a/text": "x", "a/list": [1], "a/nothing": None, "a/number": 2}
    assert records_of(tmp_path / "r", [row]).keys("a/.+") == ["a/number"]


def test_a_separator_of_unicode_does_not_end_a_line(tmp_path):
    """str.splitlines would split at U+2028, which JSON allows inside a string."""
    run_dir = write_run(tmp_path / "r", [])
    line = json.dumps({"step": 1, "a/\u2028b": 1.0}, ensure_ascii=False)
    (run_dir / "metrics.jsonl").write_text(line + "\n", encoding="utf-8")
    assert read_run(run_dir).keys("a/.+") == ["a/\u2028b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "holds no run"),
        ("", "has not logged"),
        ('{"step": 1}\nnot json\n', "not JSON"),
        ("[1]\n", "not an object with a step"),
        ('{"reward/mean": 1}\n', "not an object with a step"),
    ],
)
def test_a_folder_without_readable_metrics_is_the_users_mistake(tmp_path, text, words):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=words):
        read_run(tmp_path)


@pytest.mark.parametrize("name", ["config_yaml", "components_json"])
def test_settings_that_cannot_be_read_are_named(tmp_path, name):
    run_dir = write_run(tmp_path / "r", [evaluation(0, 0.1)], **{name: "{]"})
    with pytest.raises(UserError, match=name.replace("_", ".") + " cannot be read"):
        read_run(run_dir)


def test_settings_that_are_no_mapping_count_as_none(tmp_path):
    run = records_of(tmp_path / "r", [training(1)], config_yaml="3", components_json="[]")
    assert run.config == {} and run.components == {} and run.overrides == []
