"""Computed log-probs on disk: found again, cut to a checkpoint, and never half there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.stored import scores
from rlkit.stored.read import FIRST_ID
from rlkit.stored.scores import ScoreFiles


def logps(*places: int) -> dict[int, Tensor]:
    return {FIRST_ID - n: -torch.arange(n + 1) / 3 for n in places}


def places(found: dict[int, Tensor]) -> list[int]:
    assert all(torch.equal(logp, logps(FIRST_ID - n)[n]) for n, logp in found.items())
    return sorted(FIRST_ID - n for n in found)


def test_what_was_written_is_found_and_nothing_else(tmp_path: Path) -> None:
    files = ScoreFiles(tmp_path)
    wanted = [FIRST_ID - n for n in range(100)]
    assert files.find(wanted) == {}
    files.add(logps(5, 0))
    files.add(logps(70, 2))
    assert places(files.find(wanted)) == [0, 2, 5, 70]
    assert places(files.find(wanted[:3])) == [0, 2]


def test_a_resume_keeps_the_files_of_its_checkpoint(tmp_path: Path) -> None:
    files = ScoreFiles(tmp_path)
    for place in (3, 9, 4):
        files.add(logps(place))
    (tmp_path / ".scores-00000.parquet.tmp").touch()
    (tmp_path / "notes.txt").touch()
    again = ScoreFiles(tmp_path)
    again.keep(2)
    assert places(again.find([FIRST_ID - n for n in range(10)])) == [3, 9]
    left = {"scores-00000.parquet", "scores-00001.parquet", "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == left
    again.add(logps(4))
    again.keep(1)
    assert places(again.find([FIRST_ID - n for n in range(10)])) == [3]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scores-00000\.parquet is gone"):
        ScoreFiles(tmp_path).keep(1)


def test_only_a_few_files_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "KEPT", 2)
    files = ScoreFiles(tmp_path)
    for place in range(6):
        files.add(logps(place))
    assert places(files.find([FIRST_ID - n for n in range(6)])) == [*range(6)]
    assert len(files._read) == 2
