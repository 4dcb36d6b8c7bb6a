"""completions/tokens-step-N.parquet: what the trainer used of each token of a few responses.

One row per response. Columns that hold a list have one entry per token; a column or an entry is
null where there is no such value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.stored.parquet import read_rows, write_table

TOKEN_FILE = "tokens-step-{step}.parquet"
PER_RESPONSE = {
    "step": "int32",
    "prompt_id": "string",
    "row": "int32",
    "group": "int32",
    "sample_id": "int64",
    "source": "string",
    "made_at": "int32",
    "age": "int32",
    "replayed": "bool",
    "skipped": "bool",
    "finish_reason": "string",
    "reward": "float64",
    "rewards": "map",
    "advantage": "float32",
    "passes": "int32",
}
"""Columns of a response, and their types. `row`: its place in the batch and its line in the step's
completions; `skipped`: an update with it was not finite."""
PER_TOKEN = {
    "token_ids": "int32",
    "pieces": "string",
    "loss_mask": "bool",
    "policy_version": "int32",
    "advantages": "float32",
    "behavior_logp": "float32",
    "prox_logp": "float32",
    "logp": "float32",
    "ratio": "float32",
    "clipped": "bool",
    "last_logp": "float32",
    "last_ratio": "float32",
    "last_clipped": "bool",
}
"""Columns with a value per token, and the types of the values."""


def token_file(run_dir: Path, step: int) -> Path:
    """Where the tokens of a step are."""
    return run_dir / "completions" / TOKEN_FILE.format(step=step)


def schema() -> Any:
    """The columns of the file, a `pyarrow.Schema`."""
    import pyarrow as pa  # takes a third of a second, which nothing else has to wait for

    kinds = {
        "bool": pa.bool_(),
        "map": pa.map_(pa.string(), pa.float64()),
        **{name: getattr(pa, name)() for name in ("string", "int32", "int64", "float32")},
        "float64": pa.float64(),
    }
    columns = [pa.field(name, kinds[kind]) for name, kind in PER_RESPONSE.items()]
    columns += [pa.field(name, pa.list_(kinds[kind])) for name, kind in PER_TOKEN.items()]
    return pa.schema(columns)


def write_tokens(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the file whole or not at all. Raises UserError if the system refuses (a full disk)."""
    import pyarrow as pa

    table = pa.Table.from_pylist(list(rows), schema=schema())
    values = {f"{name}.list.element": kind for name, kind in PER_TOKEN.items()}
    packed: dict[str, Any] = {  # a third smaller than pyarrow's defaults
        "write_statistics": False,
        "use_dictionary": [name for name, kind in values.items() if kind == "string"],
        "use_byte_stream_split": [name for name, kind in values.items() if kind == "float32"],
    }
    write_table(table, path, " and continue with resume=auto", **packed)


def read_tokens(path: Path) -> list[dict[str, Any]]:
    """The rows of the file, one per response; empty if there is no such file.

    Raises UserError if it is damaged.
    """
    if not path.is_file():
        return []
    return [{**row, "rewards": dict(row["rewards"] or ())} for row in read_rows(path)]
