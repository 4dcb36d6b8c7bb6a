"""Numbers beside stored things: arrays that a draw reads at once, however many rows there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
LEAST = 16
"""Rows that are reserved at first."""


class Rows:
    """A table with one array a column, in the order in which rows were added.

    Adding a row costs the same whatever is stored, on average; leaving and reading cost a few array
    operations and no Python step per row.
    """

    _columns: dict[str, Array]
    _start: int
    _stop: int

    def __init__(self, **columns: type) -> None:
        self._types = columns
        self._reset()

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, name: str) -> Array:
        """A column, [rows]. A view: writing to it changes the table, adding rows may detach it."""
        return self._columns[name][self._start : self._stop]

    def listed(self, name: str) -> list[Any]:
        """A column as a list."""
        values: list[Any] = self[name].tolist()
        return values

    def add(self, count: int, **values: object) -> None:
        """Add rows at the end: per column a sequence of `count` values, or one number for all."""
        if self._stop + count > len(next(iter(self._columns.values()))):
            self._move(max(LEAST, 2 * (len(self) + count)))
        start, self._stop = self._stop, self._stop + count
        for name, column in self._columns.items():
            _write(column[start : self._stop], values[name])

    def keep(self, mask: Bools) -> None:
        """Drop the rows where the mask, [rows], is false."""
        left = np.flatnonzero(mask)
        gone = len(self) - len(left)
        if gone and len(left) and left[0] == gone:  # only the oldest leave
            self._forget(self._start, self._start + gone)
            self._start += gone
        elif gone:
            self.take(left)

    def take(self, places: Ints) -> None:
        """Drop all rows but those at these places, and put them in this order."""
        stop = self._start + len(places)
        for column in self._columns.values():
            column[self._start : stop] = column[self._start : self._stop][places]
        self._forget(stop, self._stop)
        self._stop = stop

    def clear(self) -> None:
        """Drop all rows."""
        self._reset()

    def _reset(self) -> None:
        self._start = self._stop = 0
        self._columns = {name: np.zeros(0, kind) for name, kind in self._types.items()}

    def _move(self, room: int) -> None:
        """Copy the rows to arrays with this much room."""
        for name, column in self._columns.items():
            moved = np.zeros(room, column.dtype)
            moved[: len(self)] = column[self._start : self._stop]
            self._columns[name] = moved
        self._start, self._stop = 0, len(self)

    def _forget(self, start: int, stop: int) -> None:
        """Let go of the objects there."""
        for column in self._columns.values():
            if column.dtype == object:
                column[start:stop] = None


class NamedRows(Rows):
    """Rows that are known by a name, each name once; they come by `put` and go by `drop`."""

    _serials: dict[str, int]
    """Name -> a number that grows from row to row, so that a search finds its place."""
    _next: int

    def __init__(self, **columns: type) -> None:
        super().__init__(name=object, serial=np.int64, **columns)

    def __contains__(self, name: str) -> bool:
        return name in self._serials

    def __iter__(self) -> Iterator[str]:
        """The names, in order."""
        return iter(self.listed("name"))

    def place(self, name: str) -> int:
        """The place of a name's row. Raises KeyError if there is none."""
        return int(np.searchsorted(self["serial"], self._serials[name]))

    def put(self, names: Sequence[str], **values: object) -> None:
        """Add a row for each of these new names."""
        serials = range(self._next, self._next + len(names))
        self._next += len(names)
        self._serials |= zip(names, serials, strict=True)
        self.add(len(names), name=names, serial=serials, **values)

    def drop(self, names: Sequence[str]) -> None:
        """Drop the rows of these names, those that have one."""
        known = [name for name in dict.fromkeys(names) if name in self._serials]
        if not known:
            return
        mask = np.ones(len(self), dtype=bool)
        mask[[self.place(name) for name in known]] = False
        self.keep(mask)
        for name in known:
            del self._serials[name]

    def _reset(self) -> None:
        super()._reset()
        self._serials = {}
        self._next = 0


def _write(places: Array, values: object) -> None:
    if places.dtype == object and isinstance(values, Sequence):
        for i, value in enumerate(values):  # an array would look into the objects
            places[i] = value
    else:
        places[:] = values
