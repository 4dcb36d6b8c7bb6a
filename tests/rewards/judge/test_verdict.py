"""Scores in answers of judges."""

from __future__ import annotations

import math

import pytest

from rlkit.rewards.judge.settings import PATTERN
from rlkit.rewards.judge.verdict import in_object, matched, number_of, to_unit


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("Score: 7", "7"),
        ("It is fine.\n\n**Score:** 7/10", "7"),
        ("score = 0.5.", "0.5"),
        ("Score: -3", "-3"),
        ("Score: [8]", "8"),
        ("<think>Score: 2?</think>\nScore: 9", "9"),
        ("SCORE 10", "10"),
        ("", None),
        ("A low score.\n\n1. It fails.", None),
        ("Score: seven", None),
        ("I underscore 5 points", None),
        ("My scores vary: 3", None),
    ],
)
def test_the_default_pattern(answer: str, word: str | None) -> None:
    assert matched(answer, PATTERN) == word


def test_the_last_match_of_a_pattern_counts() -> None:
    assert matched("yes or no? no", r"\b(yes|no)\b") == "no"
    assert matched("a", r"(b)?a") is None
    assert matched("7", "(.*)") == "7", "the empty match at the end is none"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ('{"score": 7}', "7"),
        ('Sure:\n```json\n{"why": "{", "score": "8"}\n```', "8"),
        ('{"score": 1} then {"score": 2} and {"other": 3}', "2"),
        ('{"score": 4, "parts": {"score": 1}}', "4"),
        ('{"score": true}', "true"),
        ('{"score": null}', None),
        ('{"score": [1]}', None),
        ('{"score": 7', None),
        ('{ {"score": 7}', "7"),
        ("7", None),
        ("", None),
        ('{"a":' * 100_000, None),
        ('{"score": ' + "9" * 5000 + "}", None),
    ],
    ids=range(13),
)
def test_a_field_of_the_last_object_that_has_it(answer: str, word: str | None) -> None:
    assert in_object(answer, "score") == word


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("7", 7.0),
        (" 0.25 ", 0.25),
        ("0", 0.0),
        ("10", 10.0),
        ("10.01", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("many", None),
        ("", None),
    ],
)
def test_a_number_is_in_the_range_or_none_at_all(word: str, number: float | None) -> None:
    assert number_of(word, None, 0.0, 10.0) == number


def test_words_stand_for_numbers_whatever_their_case() -> None:
    values = {"Yes": 1.0, "no": 0.0}
    assert [number_of(w, values, 0.0, 1.0) for w in ("yes", "NO ", "maybe", "1")] == [
        1,
        0,
        None,
        None,
    ]


def test_the_range_becomes_zero_to_one() -> None:
    assert [to_unit(x, -2.0, 2.0) for x in (-2, -1, 0, 2)] == [0.0, 0.25, 0.5, 1.0]
    assert math.isclose(to_unit(7, 1, 10), 2 / 3)
