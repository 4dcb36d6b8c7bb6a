"""Parquet files that are whole or not there, and read as such."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlkit.errors import UserError
from rlkit.stored.files import whole

if TYPE_CHECKING:
    from pyarrow import parquet


def write_table(table: Any, path: Path, otherwise: str = "", **options: Any) -> None:
    """Write a table under another name, flush it and rename it.

    `options` are those of `pyarrow.parquet.write_table`. Raises UserError if the system refuses (a
    full disk); `otherwise` says what else the user can do.
    """
    from pyarrow import parquet

    with whole(path, f"; make room{otherwise}") as temporary:
        parquet.write_table(table, temporary, compression="zstd", **options)


def opened(path: Path) -> parquet.ParquetFile:
    """A file. Raises UserError if it cannot be read, or is no Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as Parquet: {reason}") from None


def read_rows(
    path: Path, columns: Sequence[str] | None = None, filters: Any = None
) -> list[dict[str, Any]]:
    """The rows of a file, or some of them. Raises UserError as `opened` does."""
    import pyarrow as pa
    from pyarrow import parquet

    opened(path).close()
    try:
        chosen = None if columns is None else list(columns)
        whole: dict[str, Any] = {"partitioning": None}  # a folder named a=b is no column
        rows: list[dict[str, Any]] = parquet.read_table(
            path, columns=chosen, filters=filters, **whole
        ).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as Parquet: {reason}") from None
    return rows
