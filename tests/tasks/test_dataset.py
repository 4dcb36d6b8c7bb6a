"""Rows in memory as a task."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.tasks.dataset import dataset_task, description, rows_of, table_of
from tests.tasks.files import ROWS, every_row

datasets = importlib.import_module("datasets")


def test_lists_and_data_sets_give_the_same_rows() -> None:
    assert rows_of(datasets.Dataset.from_list(ROWS), "dataset") == rows_of(ROWS, "dataset") == ROWS
    assert table_of(ROWS, "dataset").place(2) == "dataset row 3"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "dataset must be .* not int"),
        ([1, 2], "dataset must be .* not list"),
        ("file.jsonl", "dataset must be .* not str"),
        ([], "dataset is empty"),
    ],
)
def test_what_is_no_data_set_is_said(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rows_of(given, "dataset")


def test_a_description_is_of_the_rows() -> None:
    first = description(ROWS)
    assert first.startswith("object list sha256:") and description(list(ROWS)) == first
    assert description(ROWS[1:]) != first and description(ROWS, ROWS) != first


def test_a_task_trains_on_the_rows_and_holds_some_out() -> None:
    data = dataset_task(ROWS)().load(seed=0)
    assert len(every_row(data)) == len(ROWS) and len(data.eval) > 0
    assert every_row(data)[0]["answer"] == str(ROWS[0]["answer"])


def test_a_data_set_of_its_own_is_all_held_out() -> None:
    data = dataset_task(ROWS[:30], ROWS[30:])().load(seed=0)
    assert len(data.train) == 30 and len(data.eval) == 10


def test_the_settings_are_those_of_jsonl_and_the_path_says_what_is_trained_on() -> None:
    task = dataset_task([{"question": "1+1=", "answer": "2"}, {"question": "2", "answer": "2"}])
    config = task.Config.model_validate({"prompt_column": "question", "suffix": "!"})
    assert config.path.startswith("object list sha256:")  # type: ignore[attr-defined]
    data = task(config).load(seed=0)
    assert {row["prompt"] for row in every_row(data)} == {"1+1=!", "2!"}
