"""Classes of residues."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.congruences import read_congruence
from rlkit.rewards.math.tokens import Unread, clean, tokenize


@pytest.mark.parametrize(
    ("text", "name", "residues"),
    [
        (r"x \equiv 3 \pmod{7}", ["x"], [("3", "7")]),
        (r"x \equiv 10 \pmod 7", ["x"], [("3", "7")]),
        (r"x \equiv -1 \pmod{4}", ["x"], [("3", "4")]),
        (r"3 (mod 7)", [], [("3", "7")]),
        (r"n \equiv 0, 1 \pmod{4}", ["n"], [("0", "4"), ("1", "4")]),
        (r"n \equiv 0 \text{ or } 1 \pmod{4}", ["n"], [("0", "4"), ("1", "4")]),
        (r"x \equiv a \pmod{p}", ["x"], [("a", "p")]),
    ],
)
def test_a_congruence(text: str, name: list[str], residues: list[tuple[str, str]]) -> None:
    found, form = read_congruence(tokenize(clean(text)))
    items = form.items or (form,)
    assert found == name
    assert [(str(item.value), item.unit) for item in items] == residues


@pytest.mark.parametrize(
    "text", [r"x \equiv 3 \pmod{}", r"x \equiv y \equiv 3 \pmod 7", r"1 \pmod 2 \pmod 3"]
)
def test_what_is_no_congruence_is_not_read(text: str) -> None:
    with pytest.raises(Unread):
        read_congruence(tokenize(clean(text)))
