"""Reading stored rollouts: groups on demand, so that a million rows take little memory."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlkit.batch import Group
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.stored.card import Card
from rlkit.stored.parquet import opened
from rlkit.stored.table import ABOUT, UNKNOWN, check_columns, to_groups
from rlkit.stored.write import ROLLOUTS, shards

if TYPE_CHECKING:
    import pyarrow.parquet as pq

KEPT = 16
"""Row groups of files held in memory at once."""
PATIENCE = 40.0
"""Seconds until a file that the main process has seen must be seen here too: a network file system
may show a list of files that is half a minute old."""
PAUSE = 0.1
"""Seconds between two looks."""
FIRST_ID = -(2**40)
"""Sample ids of stored responses count down from here: no other sample of a run has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of rollouts and where its groups begin."""

    path: Path
    starts: np.ndarray[Any, np.dtype[np.int64]]
    """First row of each group, and the number of rows at the end."""
    borders: np.ndarray[Any, np.dtype[np.int64]]
    """First row of each row group of the file, and the number of rows at the end."""
    card: Card | None
    unknown_logp: bool
    """Whether a response of the policy has no behavior log-probs."""


Rows = list[dict[str, Any]]
Adapt = Callable[[Shard, Rows], Rows]
"""What is done to the rows of a group before they become responses."""


def as_stored(shard: Shard, rows: Rows) -> Rows:
    """Nothing."""
    return rows


class StoredRollouts:
    """The groups of a folder's shards, in the order of the files and their rows.

    `path` is a run folder, a folder of shards or a Parquet file. Behavior log-probs that are not
    stored are NaN. Which files there are is what the main process sees: another run may still write
    them. Raises UserError if there are no rollouts.
    """

    def __init__(self, path: str, adapt: Adapt = as_stored, processes: Processes = SINGLE) -> None:
        self.path, self.adapt, self.processes = path, adapt, processes
        self.shards: list[Shard] = []
        self._read: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._ends = self._first_rows = np.zeros(0, dtype=np.int64)
        self.refresh()
        if not len(self):
            raise UserError(
                f"{path} holds no rollouts yet; a run writes them with rollout.save=true"
            )

    def __len__(self) -> int:
        """The number of groups."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def names(self) -> list[str]:
        """The files, in their order."""
        return [shard.path.name for shard in self.shards]

    @property
    def unknown_logp(self) -> bool:
        """Whether responses of the policy are stored without behavior log-probs."""
        return any(shard.unknown_logp for shard in self.shards)

    def refresh(self, names: Sequence[str] | None = None) -> None:
        """Take in whole shards that are new; with `names`, exactly these files and no others.

        Every rank must call it. Raises UserError if one of `names` is missing or a file cannot be
        read.
        """
        held = {shard.path.name: shard for shard in self.shards}
        if names is None:  # held ones first: the places of their groups must not change
            new = self.processes.on_main(lambda: [n for n in self._files() if n not in held])
            self.shards = [*self.shards, *map(open_shard, self._seen(new))]
        else:
            files = self._files()
            if missing := [name for name in names if name not in files]:
                raise UserError(
                    f"{self.path}: {missing[0]} is gone, which this run has read; restore it"
                )
            self.shards = [held.get(name) or open_shard(files[name]) for name in names]
        self._read.clear()
        self._ends = np.cumsum([len(shard.starts) - 1 for shard in self.shards])
        self._first_rows = np.cumsum([0, *(shard.starts[-1] for shard in self.shards)])

    def groups(self, places: Sequence[int]) -> list[Group]:
        """The groups at these places, each from 0 to len - 1."""
        return [self._group(place) for place in places]

    def _files(self) -> dict[str, Path]:
        """The files there are now, by name and in that order."""
        path = Path(self.path).expanduser()
        if path.is_file():
            return {path.name: path}
        if not path.is_dir():
            raise UserError(f"{self.path}: there is no such folder or file")
        inside = path / ROLLOUTS
        return {file.name: file for file in shards(inside if inside.is_dir() else path)}

    def _seen(self, names: Sequence[str]) -> list[Path]:
        """Files that the main process has seen, as soon as this process sees them.

        Raises UserError if it does not.
        """
        files, end = self._files(), time.monotonic() + PATIENCE
        while missing := [name for name in names if name not in files]:
            if time.monotonic() > end:
                raise UserError(
                    f"{self.path}: a process does not see {missing[0]}, which the main process "
                    "reads; all processes need the same folder"
                )
            time.sleep(PAUSE)
            files = self._files()
        return [files[name] for name in names]

    def _group(self, place: int) -> Group:
        number = int(np.searchsorted(self._ends, place, side="right"))
        before = int(self._ends[number - 1]) if number else 0
        shard = self.shards[number]
        start, end = (int(n) for n in shard.starts[place - before : place - before + 2])
        rows = self.adapt(shard, self._rows(number, start, end))
        first = FIRST_ID - int(self._first_rows[number])
        ids = [first - row for row in range(start, end)]
        (group,) = to_groups(rows, ids)
        return group

    def _rows(self, number: int, start: int, end: int) -> Rows:
        """Some rows of a shard, from the row groups that hold them."""
        import pyarrow as pa

        borders = self.shards[number].borders
        first = int(np.searchsorted(borders, start, side="right")) - 1
        last = int(np.searchsorted(borders, end - 1, side="right")) - 1
        held = pa.concat_tables([self._part(number, part) for part in range(first, last + 1)])
        rows: Rows = held.slice(start - int(borders[first]), end - start).to_pylist()
        return rows

    def _part(self, number: int, part: int) -> Any:
        key = number, part
        if key not in self._read:
            self._read[key] = opened(self.shards[number].path).read_row_group(part)
            if len(self._read) > KEPT:
                self._read.popitem(last=False)
        self._read.move_to_end(key)
        return self._read[key]


def open_shard(path: Path) -> Shard:
    """What is known of a file without its responses.

    Raises UserError if it holds no rollouts or the rows of a group do not stand together.
    """
    file = opened(path)
    check_columns(file.schema_arrow.names, str(path))
    numbers = file.read(["group"]).column("group").to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
    if len(numbers) == 0:
        starts = np.zeros(0, dtype=np.int64)
    if len(np.unique(numbers)) != len(starts):
        raise UserError(f"{path}: the rows of a group do not stand together; sort it by group")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    about: Mapping[bytes, bytes] = file.schema_arrow.metadata or {}
    key = ABOUT.encode()
    values = json.loads(about[key]) if key in about else None
    told = None if values is None else values.get(UNKNOWN)
    return Shard(
        path=path,
        starts=np.append(starts, len(numbers)).astype(np.int64),
        borders=np.cumsum([0, *sizes]).astype(np.int64),
        card=Card.read(path.parent.parent) if values is None else Card.of(values, str(path)),
        unknown_logp=lacks_logp(file) if told is None else bool(told),
    )


def lacks_logp(file: pq.ParquetFile) -> bool:
    """Whether a response that is no demonstration has no behavior log-probs."""
    names = set(file.schema_arrow.names)
    if "behavior_logp" not in names:
        return True
    for batch in file.iter_batches(columns=["behavior_logp", *({"source"} & names)]):
        unknown = np.array(batch.column("behavior_logp").is_null().to_pylist(), dtype=bool)
        if "source" in names:
            unknown &= np.array(batch.column("source").to_pylist()) != "expert"
        if unknown.any():
            return True
    return False
