"""Rows in memory as a task: what `rlkit.train(dataset=...)` is given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import create_model

from rlkit.errors import UserError
from rlkit.ops import CHOSEN, REJECTED
from rlkit.tasks.jsonl import ANSWER_COLUMNS, FileTask, Jsonl
from rlkit.tasks.preference import Preference
from rlkit.tasks.read import Table


def rows_of(dataset: Any, what: str) -> list[Mapping[str, Any]]:
    """The rows of a `datasets.Dataset`, or of a list of dicts. Raises UserError otherwise."""
    rows = dataset.to_list() if hasattr(dataset, "to_list") else dataset
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise UserError(
            f"{what} must be a datasets.Dataset, a list of dicts, or the name of a file or data "
            f"set, not {type(dataset).__name__}"
        )
    if not rows:
        raise UserError(f"{what} is empty: it has no rows")
    return list(rows)


def table_of(dataset: Any, what: str) -> Table:
    """A data set in memory as a table."""
    rows = rows_of(dataset, what)
    return Table(name=what, rows=rows, numbers=range(1, len(rows) + 1), unit="row")


def description(*datasets: Any) -> str:
    """How a configuration names data sets in memory: class and hash of the rows."""
    digest = hashlib.sha256()
    for dataset in datasets:
        digest.update(json.dumps(rows_of(dataset, "dataset"), default=str).encode())
    return f"object {type(datasets[0]).__name__} sha256:{digest.hexdigest()[:16]}"


def is_preferences(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every row has a chosen and a rejected response, and none an answer."""
    return all({CHOSEN, REJECTED} <= {*row} and not {*ANSWER_COLUMNS} & {*row} for row in rows)


def dataset_task(dataset: Any, eval_dataset: Any = None) -> type[FileTask[Any]]:
    """A task with these rows and the settings of task=jsonl (`prompt_column`, `suffix`, ...).

    Rows with a chosen and a rejected response and no answer are those of task=preference.
    """
    given = [dataset] if eval_dataset is None else [dataset, eval_dataset]
    kind: type[FileTask[Any]] = Jsonl
    if is_preferences(rows_of(dataset, "dataset")):
        kind = Preference
    config = create_model("DatasetConfig", __base__=kind.Config, path=(str, description(*given)))

    class DatasetTask(kind):  # type: ignore[valid-type, misc]
        """Rows in memory."""

        Config = config

        @property
        def paths(self) -> Mapping[str, Sequence[str]]:
            """None: they are in memory."""
            return {}

        def table(self) -> Table:
            """The rows to train on."""
            return table_of(dataset, "dataset")

        def eval_table(self) -> Table | None:
            """The rows to evaluate on; None = hold out some."""
            return None if eval_dataset is None else table_of(eval_dataset, "eval_dataset")

    return DatasetTask
