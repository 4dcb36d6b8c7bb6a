"""Arithmetic of written matrices, with bounds on their size and powers."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.arithmetic import sympy
from rlkit.rewards.math.expression import expression
from rlkit.rewards.math.matrices import MAX_POWER, MAX_SIZE, read_matrix, with_determinants
from rlkit.rewards.math.tokens import Unread, clean, tokenize

A = r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"
SWAP = r"\begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix}"
ONE, COLUMN = r"\begin{pmatrix} 1 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"


def matrix(text: str) -> list[list[object]]:
    found: list[list[object]] = read_matrix(tokenize(clean(text)), expression).tolist()
    return found


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (A, [[1, 2], [3, 4]]),
        (f"2 {A}", [[2, 4], [6, 8]]),
        (f"-{A}", [[-1, -2], [-3, -4]]),
        (rf"\frac12 \cdot {COLUMN}", [[sympy.Rational(1, 2)], [1]]),
        (f"{COLUMN}/2", [[sympy.Rational(1, 2)], [1]]),
        (f"{A} {SWAP}", [[2, 1], [4, 3]]),
        (f"{SWAP} {A}", [[3, 4], [1, 2]]),
        (f"{A} + 2{SWAP} - {A}", [[0, 2], [2, 0]]),
        (f"2({A} + {SWAP})", [[2, 6], [8, 8]]),
        (f"{A}^T", [[1, 3], [2, 4]]),
        (f"{SWAP}^{{-1}}", [[0, 1], [1, 0]]),
        (f"{A}^2", [[7, 10], [15, 22]]),
        (f"{A} {COLUMN}", [[5], [11]]),
    ],
)
def test_arithmetic(text: str, rows: list[list[object]]) -> None:
    assert matrix(text) == rows


@pytest.mark.parametrize(
    "text",
    [
        f"{A} + 1",
        f"{A} + {COLUMN}",
        f"{COLUMN} {A}",
        f"{COLUMN}^2",
        f"{A}^{{{MAX_POWER + 1}}}",
        f"{A}^x",
        r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}^4",
        r"\begin{pmatrix} 1 & 1 \\ 1 & 1 \end{pmatrix}^{-1}",
        r"\begin{pmatrix} 1 & 2 \\ 3 \end{pmatrix} + 0",
        "5",
        f"{A} + ",
        "2 " + r"\begin{pmatrix}" + " & ".join("1" * (MAX_SIZE**2 + 1)) + r"\end{pmatrix}",
    ],
)
def test_what_does_not_fit_is_not_read(text: str) -> None:
    with pytest.raises(Unread):
        matrix(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", -2),
        (rf"\det {A}", -2),
        (rf"\det({A})", -2),
        (rf"\left|{A}\right|", -2),
        (rf"2\left|{A}\right| + 1", -3),
        (rf"\det {A} \det {SWAP}", 2),
        (r"\begin{vmatrix} 2 \end{vmatrix}", 2),
    ],
)
def test_determinants(text: str, value: int) -> None:
    assert expression(with_determinants(tokenize(clean(text)))) == value


@pytest.mark.parametrize(
    "text", [r"\begin{vmatrix} 1 & 2 \end{vmatrix}", rf"|{A}", rf"\det {COLUMN}"]
)
def test_what_has_no_determinant_is_not_read(text: str) -> None:
    with pytest.raises(Unread):
        expression(with_determinants(tokenize(clean(text))))
