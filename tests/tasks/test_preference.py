"""The `preference` task: TRL's formats from files and memory, and what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.tasks.arithmetic import score_sum, split
from rlkit.tasks.dataset import dataset_task
from rlkit.tasks.preference import Preference
from tests.tasks.files import every_row, write

USER = {"role": "user", "content": "q"}


def answered(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ROWS: list[dict[str, Any]] = [
    {"prompt": f"{n}+1=", "chosen": f"{n + 1}", "rejected": f"{n}", "up": n + 3, "down": 2}
    for n in range(30)
]


def task(path: Path, **fields: Any) -> Any:
    return build("task", "preference", path=str(path), **fields)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
def test_rows_of_a_file(name: str, tmp_path: Path) -> None:
    """Every column stays, votes of both sides too."""
    data = task(write(tmp_path / name, ROWS)).load(0)
    assert sorted(every_row(data), key=lambda row: row["up"]) == ROWS
    assert data.train and data.eval


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_prompt_that_is_not_given_is_what_both_begin_with(name: str, tmp_path: Path) -> None:
    chats = [
        {
            "chosen": [{**USER, "content": f"q{n}"}, answered("yes")],
            "rejected": [{**USER, "content": f"q{n}"}, answered("no")],
        }
        for n in range(12)
    ]
    for row in every_row(task(write(tmp_path / name, chats)).load(0)):
        assert row["prompt"][0]["content"].startswith("q") and len(row["prompt"]) == 1
        assert (row["chosen"], row["rejected"]) == ("yes", "no")


def test_copies_of_a_prompt_are_on_one_side(tmp_path: Path) -> None:
    """Two revisions of the same answer, say."""
    twice = [{**row, "chosen": text} for row in ROWS for text in ("a", "b")]
    data = task(write(tmp_path / "a.jsonl", twice), eval_fraction=0.3).load(0)
    train, held_out = ({row["prompt"] for row in rows} for rows in (data.train, data.eval))
    assert train and held_out and not train & held_out
    assert len(data.train) + len(data.eval) == len(twice)


def test_a_row_that_is_no_preference_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, {"prompt": "q", "chosen": "a"}])
    with pytest.raises(UserError, match=r"a\.jsonl line 31 has no 'rejected'"):
        task(path).load(0)


def test_rows_in_memory_with_both_responses_and_no_answer_are_preferences() -> None:
    assert issubclass(dataset_task(ROWS), Preference)
    assert not issubclass(dataset_task([{**ROWS[0], "answer": "1"}]), Preference)
    data = dataset_task([{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in ROWS])()
    assert len(data.load(0).train) + len(data.load(0).eval) == len(ROWS)


def test_the_revised_sums_are_wrong_answers_and_their_corrections() -> None:
    """To training problems of task=arithmetic alone, so that its evaluation stays held out."""
    rows = every_row(
        build("task", "preference", path="pkg://rlkit/tasks/revised_sums.jsonl").load(0)
    )
    known = {row["prompt"]: row for row in split(5)[0]}
    assert len(rows) == 256
    for row in rows:
        problem = known[row["prompt"]]
        assert score_sum(row["chosen"], problem["answer"]) == 1
        assert score_sum(row["rejected"], problem["answer"]) == 0
        assert row["chosen"] == problem["solution"] and len(row["rejected"]) == len(row["chosen"])
