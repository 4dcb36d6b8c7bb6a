"""Writing a run's responses while it trains: one shard per step, whole or not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rlkit.batch import Group
from rlkit.stored.card import CARD, Card
from rlkit.stored.parquet import write_table
from rlkit.stored.table import to_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLLOUTS = "rollouts"
"""The folder in a run folder: card.json, and data/ with the shards."""
DATA = "data"
ROW_GROUP = 512
"""Rows that a reader takes into memory at once."""
OTHERWISE = " and continue with resume=auto, or set rollout.save=false"


def shard(folder: Path, step: int) -> Path:
    """The shard of a training step. Names sort by step."""
    return folder / DATA / f"step-{step:08d}.parquet"


def shards(folder: Path) -> list[Path]:
    """The whole shards of a folder of rollouts, in the order of their names."""
    found = (folder / DATA if (folder / DATA).is_dir() else folder).glob("*.parquet")
    return sorted(path for path in found if not path.name.startswith("."))


class RolloutWriter:
    """Writes each step's fresh responses into the run folder.

    A shard is written under another name, flushed, and renamed: a reader finds it whole or not at
    all, and a resumed run replaces those of the steps after its checkpoint (`forget_after`).
    """

    def __init__(self, folder: Path, card: Card, tokenizer: PreTrainedTokenizerBase) -> None:
        self.folder = folder
        self.card = card
        self.tokenizer = tokenizer

    def write(self, groups: Sequence[Group], step: int, offset: int) -> None:
        """Write the groups of a stage's step, `offset` steps after the run's first.

        Raises UserError if the disk refuses.
        """
        table = to_table(groups, self.tokenizer, offset, about=asdict(self.card))
        if not len(table):
            return
        path = shard(self.folder, offset + step)
        write_table(table, path, OTHERWISE, row_group_size=ROW_GROUP)
        if not (self.folder / CARD).exists():
            self.card.write(self.folder)
