"""Tables of stored things do what a plain list of rows does."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from buffers.rows import NamedRows, Rows


class Thing:
    """Something that a row holds."""

    def __len__(self) -> int:
        return 3  # an array must not take it for a list


@pytest.mark.parametrize("seed", range(5))
def test_rows_behave_as_a_list(seed: int) -> None:
    """Adding, dropping the oldest, dropping any, and reordering, in random order."""
    rng = np.random.default_rng(seed)
    rows, plain = Rows(thing=object, number=np.float64), list[tuple[Thing, float]]()
    for _ in range(200):
        new = [(Thing(), float(rng.random())) for _ in range(rng.integers(4))]
        rows.add(len(new), thing=[t for t, _ in new], number=[n for _, n in new])
        plain += new
        if rng.random() < 0.2:
            gone = int(rng.integers(3))
            rows.keep(np.arange(len(rows)) >= gone)
            plain = plain[gone:]
        if rng.random() < 0.2:
            mask = rng.random(len(rows)) < 0.8
            rows.keep(mask)
            plain = [row for row, kept in zip(plain, mask, strict=True) if kept]
        if rng.random() < 0.1:
            order = rng.permutation(len(rows))
            rows.take(order)
            plain = [plain[i] for i in order]
        assert len(rows) == len(plain)
        assert rows.listed("thing") == [thing for thing, _ in plain]
        assert rows.listed("number") == [number for _, number in plain]
    assert len(plain) > 20
    rows.clear()
    assert len(rows) == 0 and rows.listed("thing") == []


def test_one_number_counts_for_all_new_rows() -> None:
    rows = Rows(number=np.int64)
    rows.add(3, number=7)
    assert rows.listed("number") == [7, 7, 7]


@pytest.mark.slow
@pytest.mark.parametrize("gone", [[0], [1], [2], [0, 1, 2]])
def test_what_leaves_is_let_go(gone: list[int]) -> None:
    rows, things = Rows(thing=object), [Thing() for _ in range(3)]
    held = [weakref.ref(thing) for thing in things]
    rows.add(3, thing=things)
    del things
    rows.keep(np.array([i not in gone for i in range(3)]))
    gc.collect()
    assert [i for i, reference in enumerate(held) if reference() is None] == gone


@pytest.mark.parametrize("seed", range(5))
def test_named_rows_behave_as_a_dict(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, plain = NamedRows(number=np.int64), dict[str, Any]()
    for step in range(100):
        gone = [str(n) for n in rng.integers(30, size=3)]
        rows.drop(gone)
        for name in gone:
            plain.pop(name, None)
        new = [n for n in dict.fromkeys(map(str, rng.integers(30, size=4))) if n not in rows]
        rows.put(new, number=step)
        plain |= dict.fromkeys(new, step)
        assert list(rows) == list(plain)
        assert [rows["number"][rows.place(name)] for name in plain] == list(plain.values())
    assert "31" not in rows
    with pytest.raises(KeyError):
        rows.place("31")
