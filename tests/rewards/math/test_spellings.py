"""One spelling for what is written in several ways."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.spellings import one_spelling, plain_signs, words_of


def test_words() -> None:
    assert words_of("a  b\nc") == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("x \u2264 3", r"x \le  3"),
        ("10\u00b2\u00b3", "10^{23}"),
        ("s\u207b\u00b9", "s^{-1}"),
        ("\u03c9t", r"\omega t"),
        ("\u211d", r"\mathbb{R}"),
    ],
)
def test_signs_become_commands_and_a_run_of_raised_digits_one_exponent(
    text: str, plain: str
) -> None:
    assert plain_signs(text) == plain


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        (r"\begin{array}{cc}1&2\end{array}", r"\begin{pmatrix}1&2\end{pmatrix}"),
        (r"\begin{Bmatrix}1\end{Bmatrix}", r"\begin{pmatrix}1\end{pmatrix}"),
        (r"\begin{array}{c|c}1&2\end{array}", r"\begin{array}{c|c}1&2\end{pmatrix}"),
        (r"\begin{vmatrix}1\end{vmatrix}", r"\begin{vmatrix}1\end{vmatrix}"),
        (r"x \not= 3", r"x \ne  3"),
        (r"\mathbf E", "E"),
        (r"\mathbf Ex", r"\mathbf Ex"),
        (r"2 (mod 7)", r"2  \pmod{ 7}"),
        (r"2 (\text{mod } 7)", r"2  \pmod{ 7}"),
        (r"(model)", "(model)"),
        (r"{n \choose k}", r"\binom{n }{ k}"),
        (r"{a \over b}", r"\frac{a }{ b}"),
        (r"{a \overline b}", r"{a \overline b}"),
        (r"\begin{cases} x=1 \\ y=2 \end{cases}", "x=1 ,  y=2"),
        (r"\begin{cases} x & y \end{cases}", r"\begin{cases} x & y \end{cases}"),
        ("np.arcsin(x)", "arcsin(x)"),
    ],
)
def test_commands_and_environments(text: str, spelled: str) -> None:
    assert one_spelling(text).strip() == spelled
