r"""Matrices: sums, products, powers and transposes of written ones, and determinants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlkit.rewards.math.arithmetic import sympy
from rlkit.rewards.math.cursor import Expressions
from rlkit.rewards.math.tokens import Unread, bracket_step, split

BEGIN, END = r"\begin{pmatrix}", r"\end{pmatrix}"
BEGIN_DETERMINANT, END_DETERMINANT = r"\begin{vmatrix}", r"\end{vmatrix}"
MAX_SIZE = 6
MAX_POWER = 10
MAX_SYMBOLIC_SIZE, MAX_SYMBOLIC_POWER = 4, 3
"""The same for matrices with symbols in them."""
TIMES = ("*", r"\cdot", r"\times")
TRANSPOSED = (["T"], [r"\top"], [r"\intercal"], ["t"])

Expression = Callable[[list[str]], Any]


def rows_of(tokens: list[str]) -> list[list[str]]:
    """The rows of a matrix, without an empty last one."""
    rows = split(tokens, ("\\\\",))
    return rows[:-1] if not rows[-1] else rows


def entries(tokens: list[str], expression: Expression) -> Any:
    """The sympy matrix of what stands between begin and end."""
    rows = [[expression(cell) for cell in split(row, ("&",))] for row in rows_of(tokens)]
    if not rows or len({len(row) for row in rows}) > 1 or len(rows) * len(rows[0]) > MAX_SIZE**2:
        raise Unread("rows of different lengths")
    return sympy.Matrix(rows)


def determinant(reader: Expressions) -> Any:
    """The determinant of the matrix that stands here between bars."""
    end = closing(reader.tokens, reader.at - 1)
    matrix = entries(reader.tokens[reader.at : end], reader.inner)
    reader.at = end + 1
    if matrix.rows != matrix.cols or too_large(matrix, 1):
        raise Unread("determinant of a matrix that is not square")
    return matrix.det(method="berkowitz")


def too_large(matrix: Any, power: int) -> bool:
    """Whether a determinant, inverse or power takes too much work."""
    if matrix.free_symbols:
        return bool(matrix.rows > MAX_SYMBOLIC_SIZE) or power > MAX_SYMBOLIC_POWER
    return bool(matrix.rows > MAX_SIZE) or power > MAX_POWER


def closing(tokens: list[str], start: int) -> int:
    """Where the bracket that opens at `start` closes. Raises Unread if it does not."""
    depth = 0
    for at in range(start, len(tokens)):
        depth += bracket_step(tokens[at])
        if depth == 0:
            return at
    raise Unread("open bracket")


def with_determinants(tokens: list[str]) -> list[str]:
    r"""The tokens with vmatrix for |matrix|, \det matrix and \det(matrix)."""
    found = list(tokens)
    start = 0
    while BEGIN in found[start:]:
        start = found.index(BEGIN, start)
        end = closing(found, start)
        before, after = found[max(0, start - 2) : start], found[end + 1 : end + 2]
        inside = [BEGIN_DETERMINANT, *found[start + 1 : end], END_DETERMINANT]
        if before[-1:] == [r"\det"]:
            found[start - 1 : end + 1] = inside
        elif before[-1:] == ["|"] == after:
            found[start - 1 : end + 2] = inside
        elif before == [r"\det", "("] and after == [")"]:
            found[start - 2 : end + 2] = inside
        start += 1
    return found


def read_matrix(tokens: list[str], expression: Expression) -> Any:
    """The matrix that sums, products and powers of written matrices give. Raises Unread."""
    total = None
    for sign, term in signed_terms(tokens):
        value = read_product(term, expression) * sign
        if total is not None and total.shape != value.shape:
            raise Unread("matrices of different shapes")
        total = value if total is None else total + value
    return total


def signed_terms(tokens: list[str]) -> list[tuple[int, list[str]]]:
    """The terms of a sum outside every bracket, with their signs."""
    terms: list[tuple[int, list[str]]] = []
    sign, term, depth = 1, list[str](), 0
    for token in tokens:
        depth += bracket_step(token)
        if depth == 0 and token in "+-" and (not term or term[-1] not in (*TIMES, "^", "/")):
            terms += [(sign, term)] if term else []
            sign, term = (-1 if token == "-" else 1) * (sign if not term else 1), []
        else:
            term.append(token)
    return [*terms, (sign, term)]


def read_product(tokens: list[str], expression: Expression) -> Any:
    """The product of numbers and matrices side by side, or a matrix over a number."""
    scalar: list[str] = []
    value, at = sympy.Integer(1), 0
    while at < len(tokens):
        end = closing(tokens, at) if bracket_step(tokens[at]) > 0 else at
        inside = tokens[at + 1 : end]
        if tokens[at] == BEGIN:
            factor: Any = entries(inside, expression)
        elif BEGIN in inside and tokens[at] in "([":
            factor = read_matrix(inside, expression)
        else:
            scalar += tokens[at : end + 1]
            at = end + 1
            continue
        value, scalar = times(value, number(scalar, expression)), []
        at, factor = raised(tokens, end + 1, factor)
        value = times(value, factor)
    if not hasattr(value, "shape"):
        raise Unread("no matrix")
    if scalar[:1] == ["/"]:
        return value / number(scalar[1:], expression)
    return value * number(scalar, expression)


def number(tokens: list[str], expression: Expression) -> Any:
    """The factor between two matrices, without signs of multiplication around it; 1 if empty."""
    while tokens[:1] and tokens[0] in TIMES:
        tokens = tokens[1:]
    while tokens[-1:] and tokens[-1] in TIMES:
        tokens = tokens[:-1]
    return expression(tokens) if tokens else sympy.Integer(1)


def times(one: Any, other: Any) -> Any:
    """The product. Raises Unread if the shapes do not fit."""
    matrices = hasattr(one, "shape") and hasattr(other, "shape")
    if matrices and one.cols != other.rows:
        raise Unread("matrices that cannot be multiplied")
    return one * other


def raised(tokens: list[str], at: int, matrix: Any) -> tuple[int, Any]:
    """The place after an exponent that stands here, and the matrix with it."""
    if tokens[at : at + 1] != ["^"]:
        return at, matrix
    group = tokens[at + 1 : at + 2] == ["{"]
    end = closing(tokens, at + 1) + 1 if group else at + 2
    exponent = tokens[at + 2 : end - 1] if group else tokens[at + 1 : end]
    if exponent in TRANSPOSED:
        return end, matrix.T
    power = int("".join(exponent)) if "".join(exponent).lstrip("-").isdigit() else MAX_POWER + 1
    if matrix.rows != matrix.cols or too_large(matrix, abs(power)):
        raise Unread("power of a matrix")
    if power < 0 and sympy.simplify(matrix.det(method="berkowitz")) == 0:
        raise Unread("no inverse")
    return end, matrix**power
