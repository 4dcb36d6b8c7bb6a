"""What the end of a text states, and what it only mentions."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.prose import announced, last_block, last_sentence, stated


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The total is 1,234 people.", r"1,234\text{ people}"),
        ("The area is 5 m\u00b2", "5\\text{ m}\u00b2"),
        ("The loss is 28 percent.", "28 percent"),
        ("So the result is $x^2$.", "x^2"),
        ("The roots are 1 and 2.", "1 and 2"),
        ("The result: 7", "7"),
        ("So 7 is the answer.", "7"),
        ("Therefore x = 5.", "x = 5"),
        ("So she bought **7** pens.", "7"),
        ("42 because it is proved", "42"),
        ("We add.\n42", "42"),
        ("We add.\n\n\\[\nx = 1\n\\]", "x = 1"),
        ("It is 10 which is 12", "12"),
    ],
)
def test_a_statement(text: str, answer: str) -> None:
    assert stated(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "The total is not 7.",
        "The total is 7 or 8.",
        "The total is 7, and the rest is 3.",
        "The total is 7 million.",
        "The total is 7?",
        "Is the total 7?",
        "The total is seven.",
        "If the total is 7",
        "It is wrong that the total is 7.",
        "7 is a number.",
        "We add.\n- 42",
        "We add.\n3.",
        "41\n42",
        "Is it right?\n42",
        "We cannot be sure.\n42",
        "See section **5**",
        "The total is " + "1" * 400,
    ],
)
def test_no_statement(text: str) -> None:
    assert stated(text) is None


def test_the_last_sentence_and_the_last_line() -> None:
    assert last_sentence("One is 1. Two is 2.5.") == "Two is 2.5"
    assert last_sentence("Really! Is it?") == "Is it?"
    assert last_block("a\n$$\nb\n$$") == ("a\n", "$$\nb\n$$")
    assert last_block("a $$b$$") == ("", "a $$b$$")


@pytest.mark.parametrize(
    ("box", "answer"),
    [
        (r"\text{The answer is } 5", "5"),
        (r"\text{Answer: } 5", "5"),
        ("answer = 5", "5"),
        (r"\text{The answer is not } 5", r"not } 5"),
        ("5", None),
        (r"\text{My answer is } 5", None),
    ],
)
def test_a_box_that_announces_its_answer(box: str, answer: str | None) -> None:
    assert announced(box) == answer
