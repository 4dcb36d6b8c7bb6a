"""Runs that differ in the seed alone belong together."""

from __future__ import annotations

import json

import pytest

from rlkit.pages.groups import grouped, seed_of
from rlkit.runs.records import read_run
from tests.pages.written import write_pair, write_run


def labels(*folders) -> list[tuple[str, list[str]]]:
    groups, _ = grouped([read_run(folder) for folder in folders])
    return [(group.label, list(group.runs)) for group in groups]


def test_seed_and_folder_do_not_count(tmp_path):
    runs = write_pair(tmp_path, [0.5, 0.6], [0.7, 0.8])
    assert labels(*runs) == [("loss=grpo", ["0", "1"]), ("loss=remix", ["0", "1"])]


def test_only_what_differs_is_in_a_label(tmp_path):
    common = ["train.steps=4", "task=jsonl"]
    one = write_run(tmp_path / "1", {4: 0.1}, overrides=[*common, "train.learning_rate=0.1"])
    two = write_run(tmp_path / "2", {4: 0.1}, overrides=[*common, "+buffer.window=2"])
    for run in (one, two):
        (run / "config.yaml").unlink()
    assert [label for label, _ in labels(one, two)] == [
        "train.learning_rate=0.1",
        "buffer.window=2",
    ]


def test_a_default_that_was_not_written_is_named_from_the_settings(tmp_path):
    one = write_run(tmp_path / "1", {4: 0.1}, settings={"buffer": {"window": 2}})
    two = write_run(
        tmp_path / "2",
        {4: 0.1},
        overrides=["buffer.window=4"],
        settings={"buffer": {"window": 4}},
    )
    assert [label for label, _ in labels(one, two)] == ["buffer.window=2", "buffer.window=4"]


def test_a_default_that_was_written_makes_no_group_of_its_own(tmp_path):
    one = write_run(tmp_path / "1", {4: 0.1}, settings={"buffer": {"window": 2}})
    two = write_run(
        tmp_path / "2",
        {4: 0.1},
        seed=1,
        overrides=["buffer.window=2"],
        settings={"buffer": {"window": 2}},
    )
    assert labels(one, two) == [("defaults", ["0", "1"])]


def test_settings_that_differ_without_an_override_part_groups_and_are_named(tmp_path):
    runs = [
        write_run(tmp_path / str(k), {4: 0.1}, settings={"loss": {"epsilon": k / 10}})
        for k in (1, 2)
    ]
    assert [label for label, _ in labels(*runs)] == [
        "defaults (loss.epsilon=0.1)",
        "defaults (loss.epsilon=0.2)",
    ]


@pytest.mark.parametrize("section", ["tracker", "checkpoint", "completions", "resume"])
def test_what_does_not_change_the_learning_does_not_count(tmp_path, section):
    runs = [
        write_run(tmp_path / str(k), {4: 0.1}, seed=k, settings={section: {"every": k}})
        for k in (1, 2)
    ]
    assert labels(*runs) == [("defaults", ["1", "2"])]


def test_the_same_seed_again_is_left_out_unless_it_got_further(tmp_path):
    """Two runs of one seed are not two observations."""
    whole = write_run(tmp_path / "whole", {4: 0.5})
    broken = write_run(tmp_path / "broken", {2: 0.1}, steps=4)
    (group,), notes = grouped([read_run(whole), read_run(broken)])
    assert group.runs["0"].path == whole
    assert notes == [f"defaults: the same seed again, left out: {broken}"]


def test_a_part_that_changed_between_repetitions_is_told(tmp_path):
    runs = [write_run(tmp_path / str(k), {4: 0.5}, seed=k) for k in (0, 1)]
    for k, run in enumerate(runs):
        part = {"source_sha256": str(k)}
        (run / "components.json").write_text(json.dumps({"loss": part, "buffer": {}}))
    _, notes = grouped([read_run(run) for run in runs])
    assert notes == ["defaults: the source of loss changed between its runs"]


def test_seeds_are_in_the_order_of_numbers_and_name_the_base_if_it_is_another(tmp_path):
    runs = [write_run(tmp_path / str(k), {4: 0.5}, seed=k) for k in (10, 9)]
    assert labels(*runs) == [("defaults", ["9", "10"])]
    base = {"model": {"base_seed": 2}}
    assert seed_of(read_run(write_run(tmp_path / "a", {4: 0.5}, seed=1, settings=base))) == "1/2"
    assert seed_of(read_run(write_run(tmp_path / "b", {4: 0.5}, seed=2, settings=base))) == "2"
