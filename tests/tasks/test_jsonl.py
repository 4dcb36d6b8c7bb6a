"""The `jsonl` task: every format, what becomes of the columns, and the split."""

from __future__ import annotations

import importlib
import json

import pytest

from rlkit.registry import build
from rlkit.tasks.jsonl import hold_out
from rlkit.tasks.split import unit_hash
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


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"label": "l", "ground_truth": "g", "solution": "s", "answer": "a"}, "a"),
        ({"label": "l", "ground_truth": "g", "solution": "s"}, "s"),
        ({"label": "l", "ground_truth": "g"}, "g"),
        ({"label": "l", "reward_model": {"ground_truth": "r"}}, "l"),
        ({"answer": None, "reward_model": {"ground_truth": "r"}}, "r"),
    ],
)
def test_the_answer_is_the_first_usual_column_that_has_values(columns, found, tmp_path):
    rows = [{"prompt": str(i), **columns} for i in range(3)]
    assert {row["answer"] for row in every_row(load(write(tmp_path / "a.jsonl", rows)))} == {found}


def test_the_chosen_columns_are_used_and_the_others_kept(tmp_path):
    rows = [{"prompt": "p", "q": str(i), "answer": "a", "meta": {"key": i}} for i in range(9)]
    data = load(write(tmp_path / "a.jsonl", rows), prompt_column="q", answer_column="meta.key")
    for row in every_row(data):
        assert row == {
            "prompt": row["q"],
            "q": row["q"],
            "answer": row["q"],
            "meta": {"key": int(row["q"])},
        }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (27, "27"),
        (2.5, "2.5"),
        (-1, "-1"),
        (True, "true"),
        (" x ", " x "),
        ("", ""),
        ('"a"', '"a"'),
    ],
)
def test_answers_are_text(value, text, tmp_path):
    rows = [{"prompt": str(i), "answer": value} for i in range(3)]
    assert {row["answer"] for row in every_row(load(write(tmp_path / "a.jsonl", rows)))} == {text}


def test_the_suffix_is_appended_to_text_and_to_the_last_message(tmp_path):
    suffix = r" Put the final answer in \boxed{}."
    for row in every_row(load(write(tmp_path / "a.jsonl", ROWS), suffix=suffix)):
        assert row["prompt"].endswith("?" + suffix)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    rows = [{"prompt": chat, "answer": "2"}, {"prompt": chat[1:], "answer": "2"}]
    by_length = {
        len(r["prompt"]): r["prompt"]
        for r in every_row(load(write(tmp_path / "b.jsonl", rows), suffix=suffix))
    }
    assert by_length[2] == [chat[0], {"role": "user", "content": "1+1?" + suffix}]
    assert by_length[1] == [{"role": "user", "content": "1+1?" + suffix}]


def test_copies_of_a_prompt_never_straddle_and_the_suffix_moves_nothing(tmp_path):
    rows = [{"prompt": f"{i % 50}+1=", "answer": str(i)} for i in range(200)]
    path = write(tmp_path / "a.jsonl", rows)
    plain, suffixed = load(path, eval_fraction=0.3), load(path, eval_fraction=0.3, suffix="!")
    held = {row["prompt"] for row in plain.eval}
    assert held == {f"{i}+1=" for i in range(50) if unit_hash(f"{i}+1=") < 0.3}
    assert len(plain.eval) == 4 * len(held)
    hashes = [unit_hash(row["prompt"]) for row in plain.eval]
    assert hashes == sorted(hashes)
    assert not held & {row["prompt"] for row in plain.train}
    assert held == {row["prompt"][:-1] for row in suffixed.eval}


def test_adding_rows_moves_no_other_row(tmp_path):
    few, many = write(tmp_path / "few.jsonl", ROWS[:30]), write(tmp_path / "many.jsonl", ROWS)
    before = {row["prompt"] for row in load(few, eval_fraction=0.2).eval}
    after = {row["prompt"] for row in load(many, eval_fraction=0.2).eval}
    assert before == after & {row["prompt"] for row in ROWS[:30]}


def test_some_prompt_is_always_held_out():
    rows = [{"prompt": text} for text in ("a", "b", "c")]
    smallest = min("abc", key=unit_hash)
    train, held_out = hold_out(rows, 1e-9)
    assert [row["prompt"] for row in held_out] == [smallest]
    assert len(train) == 2


def test_eval_path_is_all_held_out_in_the_order_of_the_hash(tmp_path):
    train = write(tmp_path / "train.jsonl", ROWS)
    other = write(tmp_path / "test.jsonl", [{"prompt": c, "label": 1} for c in "abcdef"])
    data = load(train, eval_path=str(other))
    assert [row["prompt"] for row in data.train] == [row["prompt"] for row in ROWS]
    assert [row["prompt"] for row in data.eval] == sorted("abcdef", key=unit_hash)
    assert data.eval[0]["answer"] == "1"


def test_limit_takes_the_first_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    assert {row["prompt"] for row in every_row(load(path, limit=7))} == {
        row["prompt"] for row in ROWS[:7]
    }


def test_the_math_reward_is_the_default():
    task = build("task", "jsonl")
    assert task.default_rewards == ("math",)
    assert not task.scores
    assert not task.embedded
