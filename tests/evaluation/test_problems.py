"""The problems of benchmarks and files, and how `--on` finds them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.evaluation import problems
from rlkit.evaluation.benchmarks import BENCHMARKS
from rlkit.evaluation.golds import Key
from rlkit.evaluation.problems import ProblemSet, Target, load, targets
from rlkit.tasks.read import Table


def write(folder: Path, name: str, *rows: Any) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def loaded(name: str, folder: Path, key: Key = "original") -> ProblemSet:
    return load(Target(name=name, benchmark=BENCHMARKS[name]), str(folder), key)


def test_another_number_of_problems_is_told(tmp_path: Path) -> None:
    row = {"prompt": "1+1=", "answer": "2", "source": "x", "solution": "so"}
    write(tmp_path, "aime24.jsonl", row)
    (note,) = loaded("aime24", tmp_path).notes
    assert "1 problems" in note and "30" in note
    write(tmp_path, "aime25.jsonl", *[{**row, "id": str(i)} for i in range(30)])
    whole = loaded("aime25", tmp_path)
    assert whole.notes == () and set(whole.rows[0]) == {
        *("id", "prompt", "answer", "accepted", "tolerance")
    }


def test_a_limit_takes_the_same_fair_sample_whatever_the_order(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(30)]
    write(tmp_path, "aime24.jsonl", *rows)
    write(tmp_path, "aime25.jsonl", *reversed(rows))
    one, other = (loaded(name, tmp_path).first(4) for name in ("aime24", "aime25"))
    assert [row["prompt"] for row in one.rows] == [row["prompt"] for row in other.rows]
    assert {row["prompt"] for row in one.rows} != {row["prompt"] for row in rows[:4]}
    assert "4 of its 30" in one.notes[-1]
    assert loaded("aime24", tmp_path).first(30).rows == loaded("aime24", tmp_path).rows


def test_a_folder_without_the_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file of gsm8k: gsm8k.jsonl\[.gz\] or gsm8k_test"):
        loaded("gsm8k", tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        loaded("gsm8k", tmp_path / "none")


def test_without_a_folder_the_hub_is_asked_by_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hub(path: str, subset: str | None, split: str) -> Table:
        asked.append((path, subset, split))
        answers = {"final_answer": ["69", "84"], "unit": "%", "error": None}
        rows = [{"question": "?", **answers}]
        return Table(name=path, rows=rows, numbers=[1], unit="row")

    monkeypatch.setattr(problems, "read_table", hub)
    found = load(Target(name="olympiadbench", benchmark=BENCHMARKS["olympiadbench"]), None, "remix")
    assert asked == [("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train")]
    assert found.rows[0]["prompt"] == "?"
    assert found.rows[0]["accepted"] == ["69, 84", r"69, 84\%"]


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def hub(path: str, subset: str | None, split: str) -> Table:
        raise UserError(f"{path} does not exist here")

    monkeypatch.setattr(problems, "read_table", hub)
    with pytest.raises(UserError, match="math500: HuggingFaceH4/MATH-500 .* eval.data=FOLDER"):
        load(Target(name="math500", benchmark=BENCHMARKS["math500"]), None, "original")


def test_a_saved_data_set_is_read_as_the_hub_gives_it(tmp_path: Path) -> None:
    import datasets

    rows = [{"problem": "1+1=", "answer": "2", "unique_id": "a"}]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "set"))
    target = Target(name="math500", benchmark=BENCHMARKS["math500"], path=str(tmp_path / "set"))
    assert load(target, None, "original").rows[0]["accepted"] == ["2"]


def test_on_names_benchmarks_files_and_tasks() -> None:
    found = targets(" math500, a/b.jsonl ,mine=c.jsonl,minerva=d.jsonl,arithmetic", ["arithmetic"])
    assert [(t.name, t.benchmark and t.benchmark.name, t.path) for t in found] == [
        ("math500", "math500", None),
        ("b", None, "a/b.jsonl"),
        ("mine", None, "c.jsonl"),
        ("minerva", "minerva", "d.jsonl"),
        ("arithmetic", None, None),
    ]
    assert [t.is_task for t in found] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("math50", "Did you mean 'math500'"),
        ("arithmetik", "Did you mean 'arithmetic'"),
        ("math500,math500", "twice"),
        ("a/x.jsonl,b/x.jsonl", "twice"),
        (" , ", "nothing to evaluate on"),
    ],
)
def test_a_wrong_name_is_one_line(asked: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        targets(asked, ["arithmetic"])


def test_a_file_without_answers_says_what_it_has(tmp_path: Path) -> None:
    path = write(tmp_path, "x.jsonl", {"prompt": "1+1=", "result": "2"})
    with pytest.raises(UserError, match="none of the columns answer.*it has: prompt, result"):
        load(Target(name="x", path=path), None, "original")
