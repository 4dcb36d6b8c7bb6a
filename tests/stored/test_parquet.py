"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from rlkit.errors import UserError
from rlkit.stored.files import unfinished
from rlkit.stored.parquet import opened, read_rows, write_table

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})


def test_rows_come_back_and_some_of_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.parquet"
    write_table(TABLE, path, row_group_size=2)
    assert read_rows(path) == TABLE.to_pylist()
    assert read_rows(path, ["b"], [("a", "in", [1, 3])]) == [{"b": "x"}, {"b": "z"}]
    assert opened(path).num_row_groups == 2
    assert [each.name for each in path.parent.iterdir()] == ["a.parquet"]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    write_table(TABLE, path)

    def half(table: pa.Table, where: Path, **options: object) -> None:
        where.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", half)
    with pytest.raises(UserError, match="No space left on device; make room, or less"):
        write_table(TABLE.slice(1), path, ", or less")
    assert not unfinished(path).exists()
    assert read_rows(path) == TABLE.to_pylist()


@pytest.mark.parametrize("content", [None, "text"])
def test_what_is_no_parquet_is_one_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "a.parquet"
    if content is not None:
        path.write_text(content)
    for read in (opened, read_rows):
        with pytest.raises(UserError, match="cannot be read as Parquet"):
            read(path)
