r"""From text to tokens: one spelling for what is the same, and a closed alphabet."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.tokens import (
    MAX_CHARS,
    MAX_TOKENS,
    Unread,
    bracket_step,
    canonical,
    clean,
    split,
    strip_math,
    tokenize,
)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("$x$", "x"),
        ("$$x$$.", "x"),
        (r"\(x\)", "x"),
        (r"\[ x \].", "x"),
        ("$x$ and $y$", "$x$ and $y$"),
        ("5.", "5"),
        (r"\$5\$", r"\$5\$"),
        ("\u22125", "-5"),
        ("$", "$"),
    ],
)
def test_delimiters_around_a_text_go(text: str, inside: str) -> None:
    assert strip_math(text) == inside


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        (r"\left(1,\, 2\right)", "(1, 2 )"),
        ("1 234 567", "1234567"),
        (r"1{,}234", "1234"),
        (r"12\,345", "12345"),
        ("3 1/2", r"3\frac{1}{2}"),
        ("-3 1/2", r"-3\frac{1}{2}"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed{5}", "{5}"),
        ("1 23", "1 23"),
    ],
)
def test_layout_and_grouped_digits_have_one_spelling(text: str, spelled: str) -> None:
    assert clean(text).split() == spelled.split()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("2x", ["2", "x"]),
        (".5e-3", [".5e-3"]),
        ("1,234", ["1234"]),
        ("(1,234)", ["(", "1", ",", "234", ")"]),
        (r"\dfrac{1}{2}", [r"\frac", "{", "1", "}", "{", "2", "}"]),
        ("x**2 >= 3", ["x", "^", "2", r"\ge", "3"]),
        ("sin x", [r"\sin", "x"]),
        (r"3\text{ cm}", ["3", r"\text:cm"]),
        (r"\text{and}", [r"\and"]),
        (r"\text{(B)}", ["B"]),
        (r"\text{-7}", ["-", "7"]),
        (r"\mathbb{R}", [r"\mathbb{R}"]),
        (
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
            [r"\begin{pmatrix}", "1", "\\\\", "2", r"\end{pmatrix}"],
        ),
        (r"5\%", ["5", "%"]),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


@pytest.mark.parametrize("text", ["@", "a#b", "x" * (MAX_CHARS + 1), "+" * (MAX_TOKENS + 1)])
def test_what_is_not_in_the_alphabet_or_too_long_is_not_read(text: str) -> None:
    with pytest.raises(Unread):
        tokenize(text)
    assert len(tokenize("+" * MAX_TOKENS)) == MAX_TOKENS


def test_brackets_open_and_close() -> None:
    assert [bracket_step(t) for t in ("(", r"\{", r"\begin{matrix}", "{")] == [1] * 4
    assert [bracket_step(t) for t in (")", r"\}", r"\end{matrix}", "}")] == [-1] * 4
    assert bracket_step("x") == 0


def test_parts_are_split_outside_every_bracket() -> None:
    tokens = ["(", "1", ",", "2", ")", ",", "3", ";", ",", "4"]
    assert split(tokens, (",",)) == [["(", "1", ",", "2", ")"], ["3", ";"], ["4"]]
    assert split([], (",",)) == [[]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\text{two  words}", "two words"),
        ("$a + b$", "a+b"),
        (r"\frac{  @  #  }", r"\frac{@#}"),
    ],
)
def test_texts_of_no_known_form_keep_the_blanks_that_matter(text: str, found: str) -> None:
    assert canonical(text) == found
