"""Log-probs of stored responses that a run has computed, kept beside it.

    scores-00000.parquet: sample_id, logp     one file each time some were missing

A resumed run reads those of its checkpoint and computes the later ones again, from the same
responses at once and therefore with the same bits.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.stored.parquet import opened, write_table
from rlkit.stored.read import FIRST_ID

KEPT = 16
"""Files held in memory at once."""
NOWHERE = -1
_NAME = re.compile(r"\.?scores-(\d+)\.parquet(\.tmp)?", re.ASCII)


class ScoreFiles:
    """A folder of computed log-probs, by the ids of stored samples."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        """Files that are there."""
        self._file = np.zeros(0, dtype=np.int32)
        self._row = np.zeros(0, dtype=np.int32)
        """Of each stored row: the file with its log-probs, or NOWHERE, and its row there."""
        self._read: OrderedDict[int, Any] = OrderedDict()

    def keep(self, count: int) -> None:
        """Go on with the first `count` files; the others are removed.

        Raises UserError if one of them is missing.
        """
        for path in self.folder.glob("*"):
            found = _NAME.fullmatch(path.name)
            if found is not None and (found[2] or int(found[1]) >= count):
                path.unlink()
        self.count, self._file[:] = 0, NOWHERE
        self._read.clear()
        for _ in range(count):
            if not self._path(self.count).is_file():
                raise UserError(
                    f"{self._path(self.count)} is gone, which holds log-probs that this run has "
                    "computed; restore it"
                )
            self._index(opened(self._path(self.count)).read(["sample_id"]).column(0).to_numpy())

    def find(self, sample_ids: Sequence[int]) -> dict[int, Tensor]:
        """The log-probs of those samples that have any, [T] float32 each."""
        found: dict[int, Tensor] = {}
        for sample_id in sample_ids:
            place = FIRST_ID - sample_id
            if place < len(self._file) and self._file[place] != NOWHERE:
                column = self._table(int(self._file[place])).column("logp")
                values = column[int(self._row[place])].values.to_numpy()
                found[sample_id] = torch.from_numpy(np.array(values, dtype=np.float32))
        return found

    def add(self, logps: Mapping[int, Tensor]) -> None:
        """Write the log-probs of some samples as the next file.

        Raises UserError if the disk refuses.
        """
        import pyarrow as pa

        ends = np.cumsum([0, *(len(logp) for logp in logps.values())], dtype=np.int32)
        values = pa.array(torch.cat([*logps.values()]).numpy())
        ids = np.array([*logps], dtype=np.int64)
        table = pa.table({"sample_id": ids, "logp": pa.ListArray.from_arrays(ends, values)})
        write_table(table, self._path(self.count), " and continue with resume=auto")
        self._index(ids)

    def _path(self, number: int) -> Path:
        return self.folder / f"scores-{number:05d}.parquet"

    def _index(self, sample_ids: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Take in the next file, which holds these samples."""
        places = FIRST_ID - sample_ids
        missing = int(places.max(initial=-1)) + 1 - len(self._file)
        if missing > 0:
            missing = max(missing, len(self._file))  # twice as long, so that it rarely grows
            more = np.full(missing, NOWHERE, dtype=np.int32)
            self._file, self._row = np.append(self._file, more), np.append(self._row, more)
        self._file[places], self._row[places] = self.count, np.arange(len(places))
        self.count += 1

    def _table(self, number: int) -> Any:
        if number not in self._read:
            self._read[number] = opened(self._path(number)).read()
            if len(self._read) > KEPT:
                self._read.popitem(last=False)
        self._read.move_to_end(number)
        return self._read[number]
