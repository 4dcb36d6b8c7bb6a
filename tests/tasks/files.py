"""Data files in every format, for the tests of the `jsonl` task."""

from __future__ import annotations

import gzip
import importlib
import json
from pathlib import Path
from typing import Any

from rlkit.interfaces import TaskData
from rlkit.registry import build

pyarrow = importlib.import_module("pyarrow")
parquet = importlib.import_module("pyarrow.parquet")

ROWS: list[dict[str, Any]] = [
    {"prompt": f"What is {i}+1?", "answer": i + 1, "level": i % 3} for i in range(40)
]
VERL: list[dict[str, Any]] = [
    {
        "data_source": "math",
        "prompt": [{"role": "user", "content": f"What is {i}+1?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
        "extra_info": {"split": "train", "index": i},
    }
    for i in range(20)
]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the file's name says."""
    if path.name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines(rows).encode()))
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text(lines(rows))
    return path


def load(path: Path | str, **fields: Any) -> TaskData:
    data: TaskData = build("task", "jsonl", path=str(path), **fields).load(seed=0)
    return data


def every_row(data: TaskData) -> list[dict[str, Any]]:
    return sorted(
        (dict(row) for row in [*data.train, *data.eval]), key=lambda row: str(row["prompt"])
    )
