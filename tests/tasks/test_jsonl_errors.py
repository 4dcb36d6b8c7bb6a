"""The `jsonl` task: a line of explanation for every mistake in the data or the settings."""

from __future__ import annotations

import gzip
import importlib
from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.registry import build
from tests.tasks.files import ROWS, VERL, lines, load, write

datasets = importlib.import_module("datasets")


def message(path: Path | str, **fields: Any) -> str:
    with pytest.raises(UserError) as raised:
        load(path, **fields)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_no_path_is_said():
    with pytest.raises(UserError, match=r"task\.path is not set"):
        build("task", "jsonl").load(seed=0)


def test_a_missing_file_is_named_with_the_nearest_one(tmp_path):
    write(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "trian.txt").write_text("")
    text = message(tmp_path / "trian.jsonl")
    assert "trian.jsonl does not exist" in text
    assert "'train.jsonl'" in text


def test_a_path_is_never_looked_up_on_the_hub(tmp_path):
    write(tmp_path / "train.jsonl", ROWS)
    assert "does not exist. Did you mean 'train.jsonl'?" in message(tmp_path / "train")
    assert "./nothing does not exist" in message("./nothing")


def test_a_missing_folder_is_said(tmp_path):
    assert "the folder" in message(tmp_path / "none" / "a.jsonl")


def test_a_name_that_is_no_data_set_is_said(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'no/such' doesn't exist.\nMore.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    text = message("no/such")
    assert "no/such" in text
    assert "doesn't exist." in text


def test_a_file_of_an_unknown_kind_is_said(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,answer\n1,2\n")
    text = message(tmp_path / "a.csv")
    assert "a.csv" in text
    assert ".jsonl" in text


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.parquet"])
def test_no_rows_are_said(name, tmp_path):
    assert "a." in message(write(tmp_path / name, [])) and "is empty" in message(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lines(ROWS[:2]) + "{broken\n" + lines(ROWS[2:]), "a.jsonl line 3 is not valid JSON"),
        ("\n\n" + lines(ROWS[:2]) + '{"prompt": "cut', "a.jsonl line 5 is not valid JSON"),
        (lines(ROWS[:2]) + "[1, 2]\n", "a.jsonl line 3 is not an object"),
        (lines(ROWS[:2]) + '\n{"answer": "1"}\n', "a.jsonl line 4 has no prompt"),
        (lines(ROWS[:2]) + '{"prompt": null, "answer": "1"}\n', "a.jsonl line 3 has no prompt"),
        (lines(ROWS[:2]) + '{"prompt": " ", "answer": "1"}\n', "a.jsonl line 3 has no prompt"),
        (lines(ROWS[:2]) + '{"prompt": [], "answer": "1"}\n', "a.jsonl line 3 has no prompt"),
        (lines(ROWS[:2]) + '{"prompt": "1+1="}\n', "a.jsonl line 3 has no answer"),
        (lines(ROWS[:2]) + '{"prompt": "1", "answer": null}\n', "a.jsonl line 3 has no answer"),
        (lines(ROWS[:2]) + '{"prompt": "1", "answer": [1]}\n', "a.jsonl line 3: the answer"),
        (lines(ROWS[:2]) + '{"prompt": 7, "answer": "1"}\n', "a.jsonl line 3: the prompt must be"),
        (
            lines(ROWS[:2]) + '{"prompt": [{"role": "user"}], "answer": "1"}\n',
            "a.jsonl line 3: the",
        ),
    ],
)
def test_a_bad_row_is_named_by_its_line(content, said, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    assert said in message(path)


def test_a_bad_row_of_an_array_or_a_table_is_named_by_its_place(tmp_path):
    rows: list[dict[str, Any]] = [{"prompt": "1", "answer": "1"}, {"prompt": "2", "answer": None}]
    assert "a.json row 2 has no answer" in message(write(tmp_path / "a.json", rows))
    assert "a.parquet row 2 has no answer" in message(write(tmp_path / "a.parquet", rows))
    (tmp_path / "b.json").write_text('[{"prompt": "1",\n "answer": }]')
    assert "b.json line 2 is not valid JSON" in message(tmp_path / "b.json")


def test_a_half_read_file_gives_nothing(tmp_path):
    whole = gzip.compress(lines(ROWS).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-12])
    assert "a.jsonl.gz is not a complete gzip file" in message(tmp_path / "a.jsonl.gz")
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    assert "b.jsonl.gz is not a complete gzip file" in message(tmp_path / "b.jsonl.gz")
    for position in (12, len(whole) // 2, len(whole) - 6):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        (tmp_path / "d.jsonl.gz").write_bytes(damaged)
        assert "d.jsonl.gz is not a complete gzip file" in message(tmp_path / "d.jsonl.gz")
    cut = write(tmp_path / "c.parquet", ROWS)
    cut.write_bytes(cut.read_bytes()[:-9])
    assert "c.parquet is not a parquet file" in message(cut)


def test_text_that_is_not_utf8_is_said(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "\xff", "answer": "1"}\n')
    assert "a.jsonl is not UTF-8 text" in message(tmp_path / "a.jsonl")


def test_a_column_that_is_not_there_is_named_with_the_nearest_and_the_known_ones(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    text = message(path, prompt_column="promt")
    assert "'promt' (task.prompt_column)" in text
    assert "'prompt'?" in text
    assert "prompt, answer, level" in text
    text = message(path, answer_column="levle")
    assert "'levle' (task.answer_column)" in text
    assert "'level'?" in text
    nested = write(tmp_path / "b.jsonl", VERL)
    assert "'reward_model.ground_truth'?" in message(
        nested, answer_column="reward_model.groundtruth"
    )


def test_no_answer_column_is_said_with_the_columns_there_are(tmp_path):
    text = message(write(tmp_path / "a.jsonl", [{"prompt": "1+1=", "reply": "2"}]))
    assert "no answer column" in text
    assert "prompt, reply" in text


def test_a_data_set_with_one_prompt_cannot_be_split(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"prompt": "1+1=", "answer": "2"}] * 5)
    assert "single prompt" in message(path)
    assert len(load(path, eval_path=str(path)).train) == 5
