"""The answers of an evaluation, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.batch import Prompt
from rlkit.errors import UserError
from rlkit.evaluation.answers import Answered
from rlkit.evaluation.records import AnswerFiles, read_answers, write_answers

CHAT = [{"role": "user", "content": "3 + 4 = ?"}]


def answered(name: str, prompt: Any, n: int, **columns: Any) -> Answered:
    return Answered(
        prompt=Prompt(
            prompt_id=name, text_or_messages=prompt, ids=torch.tensor([1]), columns=columns
        ),
        texts=[f"{name} {i}" for i in range(n)],
        lengths=[i + 2 for i in range(n)],
        finish_reasons=["length", *["stop"] * (n - 1)],
        totals=[None, *[1.5] * (n - 1)],
        components={"math": [None, *[1.0] * (n - 1)], "none": [None] * n},
        right=[False, *[True] * (n - 1)],
    )


SAMPLED = [
    answered("a", "1 + 1 = ?", 2, answer="2", level=3, source={"book": "é"}),
    answered("b", CHAT, 2, answer=7),
]
GREEDY = [answered("a", "1 + 1 = ?", 1, answer="2", level=3), answered("b", CHAT, 1, answer=7)]


def test_each_response_is_a_row_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    write_answers(tmp_path / "deep" / "answers.parquet", SAMPLED, GREEDY)
    rows = read_answers(tmp_path / "deep" / "answers.parquet")
    assert [(r["prompt_id"], r["place"], r["greedy"], r["sample"]) for r in rows] == [
        *(("a", 0, False, 0), ("a", 0, False, 1), ("b", 1, False, 0), ("b", 1, False, 1)),
        *(("a", 0, True, 0), ("b", 1, True, 0)),
    ]
    assert rows[1] == {
        "prompt_id": "a",
        "prompt": "1 + 1 = ?",
        "answer": "2",
        "columns": '{"level": 3, "source": {"book": "é"}}',
        "place": 0,
        "greedy": False,
        "sample": 1,
        "response": "a 1",
        "length": 3,
        "finish_reason": "stop",
        "right": True,
        "reward": 1.5,
        "reward/math": 1.0,
        "reward/none": None,
    }
    assert rows[0]["reward"] is None and rows[0]["finish_reason"] == "length"
    assert rows[2]["prompt"] == '[{"role": "user", "content": "3 + 4 = ?"}]'
    assert rows[2]["answer"] == "7"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["answers.parquet"]


@pytest.mark.parametrize(("limit", "count"), [(None, 6), (1, 3), (9, 6)])
def test_a_run_keeps_the_answers_to_the_first_problems(
    tmp_path: Path, limit: int | None, count: int
) -> None:
    files = AnswerFiles(tmp_path, limit)
    files.keep(4, [], GREEDY)
    files.keep(4, SAMPLED, GREEDY)
    assert [p.name for p in tmp_path.iterdir()] == ["step-4.parquet"], "replaced"
    rows = read_answers(tmp_path / "step-4.parquet")
    assert len(rows) == count
    assert {r["place"] for r in rows} == ({0} if limit == 1 else {0, 1})


def test_none_is_kept_if_none_is_wanted(tmp_path: Path) -> None:
    AnswerFiles(tmp_path / "no", 0).keep(4, SAMPLED, GREEDY)
    assert not (tmp_path / "no").exists()


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"answers\.parquet cannot be written: .*eval\.answers=0"):
        write_answers(tmp_path / "file" / "answers.parquet", SAMPLED, GREEDY)
