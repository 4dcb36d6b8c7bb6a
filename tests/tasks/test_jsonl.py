"""The `jsonl` task: what becomes of the columns, the split, and what is said of a bad row."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.tasks.jsonl import hold_out
from rlkit.tasks.split import unit_hash
from tests.tasks.files import ROWS, VERL, every_row, lines, load, write

datasets = importlib.import_module("datasets")


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


def test_all_problems_are_those_of_the_file_or_of_the_evaluation_file(tmp_path):
    """In the order of held-out ones, so that the first n are a fair sample; with the suffix."""
    train = write(tmp_path / "train.jsonl", ROWS)
    other = write(tmp_path / "test.jsonl", [{"prompt": c, "label": 1} for c in "abcdef"])

    def prompts(**fields: Any) -> list[str]:
        task = build("task", "jsonl", path=str(train), **fields)
        return [row["prompt"] for row in task.all_problems(0)]

    assert prompts() == sorted((row["prompt"] for row in ROWS), key=unit_hash)
    assert set(prompts(limit=7)) == {row["prompt"] for row in ROWS[:7]}
    assert prompts(eval_path=str(other)) == sorted("abcdef", key=unit_hash)
    assert prompts(eval_path=str(other), suffix="!")[0].endswith("!")
    single = write(tmp_path / "single.jsonl", ROWS[:1])
    assert len(build("task", "jsonl", path=str(single)).all_problems(0)) == 1


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


def message(path: Path | str, **fields: Any) -> str:
    with pytest.raises(UserError) as raised:
        load(path, **fields)
    text = str(raised.value)
    assert "\n" not in text
    return text


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


def test_errors_begin_with_the_setting_that_the_rows_come_from(tmp_path):
    good, bad = write(tmp_path / "a.jsonl", ROWS), tmp_path / "b.jsonl"
    bad.write_text("{broken\n")
    assert message(bad).startswith(f"task.path={bad} line 1 is not valid JSON")
    said = f"task.eval_path={bad} line 1 is not valid JSON"
    assert message(good, eval_path=str(bad)).startswith(said)
    with pytest.raises(UserError, match=rf"task\.path=\[{good},{bad}\]: {bad} line 1 is not"):
        build("task", "jsonl", path=(str(good), str(bad))).load(seed=0)
    with pytest.raises(UserError, match=r"task\.path=pkg://no_such/a: the Python package"):
        build("task", "jsonl", path="pkg://no_such/a").load(seed=0)
