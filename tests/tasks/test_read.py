"""Every format of a data file, and what is said of a file that cannot be read."""

from __future__ import annotations

import gzip
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.tasks.read import read_rows, read_tables
from tests.tasks.files import ROWS, VERL, every_row, lines, load, write

datasets = importlib.import_module("datasets")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet", "A.JSONL"])
def test_every_format_gives_the_same_rows(name, tmp_path):
    wanted = [{**row, "answer": str(row["answer"])} for row in ROWS]
    assert every_row(load(write(tmp_path / name, ROWS))) == sorted(
        wanted, key=lambda row: str(row["prompt"])
    )


def test_json_may_also_hold_one_object_a_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(lines(ROWS))
    assert len(every_row(load(path))) == 40


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\ufeff" + lines(ROWS[:3]) + "\n\n" + lines(ROWS[3:]), encoding="utf-8")
    assert len(every_row(load(path))) == 40


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": f"{i}\u2028{i}", "answer": "1"} for i in range(9)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert len(every_row(load(path))) == 9


def test_verl_parquet_is_read_unchanged(tmp_path):
    rows = every_row(load(write(tmp_path / "train.parquet", VERL)))
    assert [row["answer"] for row in rows] == [
        row["reward_model"]["ground_truth"] for row in sorted(VERL, key=lambda r: str(r["prompt"]))
    ]
    for row in rows:
        assert row["prompt"][0]["role"] == "user"
        assert int(row["answer"]) == row["extra_info"]["index"] + 1
        assert row["data_source"] == "math"


def test_a_folder_is_loaded_as_a_hugging_face_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.parquet", ROWS)
    assert len(every_row(load(tmp_path / "set"))) == 40


def test_a_name_is_loaded_with_its_subset_and_splits(tmp_path, monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_list(
            [{"question": "1+1=", "answer": "2"}, {"question": "2+2=", "answer": "4"}]
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load("openai/gsm8k", subset="main", eval_path="openai/gsm8k", prompt_column="question")
    assert asked == [
        (("openai/gsm8k", "main"), {"split": "train"}),
        (("openai/gsm8k", "main"), {"split": "test"}),
    ]
    assert [row["prompt"] for row in data.train] == ["1+1=", "2+2="]
    assert data.train[0]["question"] == "1+1="


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


def test_rows_of_a_part_know_their_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    rows = read_rows(str(path))
    assert [(row.number, row.columns["a"]) for row in rows] == [(1, 1), (3, 2)]
    assert rows[1].place == f"{path} line 3"


def test_several_files_and_patterns_are_read_one_after_the_other(tmp_path):
    for name, rows in (("a1.jsonl", ROWS[:2]), ("a2.jsonl", ROWS[2:5]), ("b.parquet", ROWS[5:9])):
        write(tmp_path / name, rows)
    table = read_tables([str(tmp_path / "b.parquet"), str(tmp_path / "a*.jsonl")], None, "train")
    assert [row["answer"] for row in table.rows] == [6, 7, 8, 9, 1, 2, 3, 4, 5]
    assert table.place(0).endswith("b.parquet row 1") and table.place(8).endswith("a2.jsonl line 3")
    assert [row["answer"] for row in table.head(5).rows] == [6, 7, 8, 9, 1]
    with pytest.raises(UserError, match="no file matches"):
        read_tables(str(tmp_path / "c*.jsonl"), None, "train")
    data = build("task", "jsonl", path=[str(tmp_path / "a?.jsonl")], eval_path=str(tmp_path / "b*"))
    loaded = data.load(seed=0)
    assert len(loaded.train) == 5 and len(loaded.eval) == 4


def test_what_save_to_disk_wrote_is_loaded(tmp_path):
    one = datasets.Dataset.from_list(ROWS)
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=one, small=one.select(range(7))).save_to_disk(tmp_path / "both")
    assert len(read_tables(str(tmp_path / "one"), None, "train").rows) == 40
    assert len(read_tables(str(tmp_path / "both"), None, "small").rows) == 7
    with pytest.raises(UserError, match=r"has no split 'test'. Splits: train, small"):
        read_tables(str(tmp_path / "both"), None, "test")
