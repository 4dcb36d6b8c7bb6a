"""The file of what the trainer used of each token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from rlkit.errors import UserError
from rlkit.runs.token_file import PER_RESPONSE, PER_TOKEN, read_tokens, token_file, write_tokens

ROW: dict[str, Any] = {
    "step": 3,
    "prompt_id": "train-1",
    "rewards": [("one", 0.5)],
    "token_ids": [4, 5],
    "pieces": ["</script>", "\N{RIGHT-TO-LEFT OVERRIDE}"],
    "loss_mask": np.array([True, False]),
    "ratio": np.array([1.0, float("nan")], dtype=np.float32),
    "prox_logp": None,
}


def test_what_is_written_is_read_and_what_is_missing_is_null(tmp_path: Path) -> None:
    path = token_file(tmp_path, 3)
    path.parent.mkdir()
    write_tokens(path, [ROW, {"step": 3}])
    full, empty = read_tokens(path)
    assert set(full) == {*PER_RESPONSE, *PER_TOKEN}
    assert full["rewards"] == {"one": 0.5} and empty["rewards"] == {}
    assert full["pieces"] == ROW["pieces"] and full["loss_mask"] == [True, False]
    assert full["ratio"][0] == 1.0 and np.isnan(full["ratio"][1])
    assert full["prox_logp"] is None and empty["token_ids"] is None
    assert str(parquet.read_schema(path).field("behavior_logp").type) == "list<element: float>"
    assert read_tokens(token_file(tmp_path, 4)) == []


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = token_file(tmp_path / "file", 3)
    with pytest.raises(UserError, match="tokens-step-3.parquet cannot be written: "):
        write_tokens(path, [ROW])
    assert read_tokens(path) == []


def test_a_file_written_again_is_the_same(tmp_path: Path) -> None:
    """A step that is repeated after a kill leaves the same bytes."""
    one, two = tmp_path / "1.parquet", tmp_path / "2.parquet"
    write_tokens(one, [ROW])
    write_tokens(two, [ROW])
    write_tokens(two, [ROW])
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.parquet", "2.parquet"]
