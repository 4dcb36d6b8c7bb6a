"""Shards are whole or not there, and a resume begins where its checkpoint ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.stored.card import Card
from rlkit.stored.step_files import forget_after, step_of
from rlkit.stored.write import RolloutWriter, shards
from tests.stored.groups import TOKENIZER, group


def steps(folder: Path) -> list[int | None]:
    return [step_of(path) for path in shards(folder)]


def test_shards_sort_by_step_and_are_cut_after_one(tmp_path: Path) -> None:
    writer = RolloutWriter(tmp_path, Card(), TOKENIZER)
    for step in (1, 2, 10, 11):
        writer.write([group(step)], step, offset=0)
    (tmp_path / "data" / ".step-00000012.parquet.tmp").write_text("half")
    assert steps(tmp_path) == [1, 2, 10, 11]
    forget_after(tmp_path, 2)
    assert steps(tmp_path) == [1, 2]
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_a_later_stage_goes_on_counting(tmp_path: Path) -> None:
    RolloutWriter(tmp_path, Card(), TOKENIZER).write([group(0)], 3, offset=20)
    assert steps(tmp_path) == [23]


def test_a_step_without_responses_leaves_nothing(tmp_path: Path) -> None:
    RolloutWriter(tmp_path / "out", Card(), TOKENIZER).write([], 1, offset=0)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*rollout\.save=false"):
        RolloutWriter(tmp_path / "file" / "in", Card(), TOKENIZER).write([group(0)], 1, offset=0)
