"""The answers of an evaluation as a Parquet file, one row per response."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from rlkit.batch import Prompt
from rlkit.evaluation.answers import Answered
from rlkit.stored.parquet import read_rows, write_table

REWARD = "reward/"
"""How the column of a single reward begins."""


def rows_of(answers: Sequence[Answered], *, greedy: bool) -> Iterator[dict[str, Any]]:
    """The responses to each problem, with what they were asked and what they got.

    `reward` is the total, `reward/<name>` a single reward, null where none applies; `prompt` holds
    a text, or a chat as JSON; `columns` the problem's other columns as JSON, but for `answer`,
    which is a column.
    """
    for place, answered in enumerate(answers):
        problem = _problem(answered.prompt) | {"place": place}
        for sample, text, length, reason, total, right in zip(
            count(),
            answered.texts,
            answered.lengths,
            answered.finish_reasons,
            answered.totals,
            answered.right,
            strict=False,
        ):
            each = {REWARD + name: v[sample] for name, v in answered.components.items()}
            yield problem | {
                "greedy": greedy,
                "sample": sample,
                "response": text,
                "length": length,
                "finish_reason": reason,
                "right": right,
                "reward": total,
                **each,
            }


def _problem(prompt: Prompt) -> dict[str, Any]:
    asked, columns = prompt.text_or_messages, dict(prompt.columns)
    answer = columns.pop("answer", None)
    return {
        "prompt_id": prompt.prompt_id,
        "prompt": asked if isinstance(asked, str) else _json(asked),
        "answer": answer if isinstance(answer, str | None) else _json(answer),
        "columns": _json(columns),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class AnswerFiles:
    """`<folder>/step-N.parquet`: the answers of each evaluation of a run to the first problems."""

    folder: Path
    limit: int | None
    """To how many problems; None = all, 0 = no files."""

    def keep(self, step: int, sampled: Sequence[Answered], greedy: Sequence[Answered]) -> None:
        """Write the file of a step; one that is there is replaced."""
        if self.limit != 0:
            write_answers(
                self.folder / f"step-{step}.parquet", sampled[: self.limit], greedy[: self.limit]
            )


def write_answers(path: Path, sampled: Sequence[Answered], greedy: Sequence[Answered]) -> None:
    """Write a file, whole or not at all. Raises UserError if the system refuses (a full disk)."""
    import pyarrow as arrow

    rows = [*rows_of(sampled, greedy=False), *rows_of(greedy, greedy=True)]
    kinds = {name: arrow.float64() for name in rows[0] if name.startswith(REWARD)}
    kinds |= {"reward": arrow.float64(), "answer": arrow.string()}
    table = arrow.table(
        {name: arrow.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]}
    )
    write_table(table, path, ", or set eval.answers=0")


def read_answers(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that `write_answers` wrote."""
    return read_rows(path)
