"""Findings put together, and numbers in words."""

from __future__ import annotations

import pytest

from rlkit.composition.doctor.check import Notes, between, duration, share, size


def test_the_worst_finding_decides_and_comes_first() -> None:
    notes = Notes("x")
    notes.fine("Fine.")
    notes.warn("Odd.", "Look.")
    notes.problem("Broken.", "Mend.")
    notes.warn("Odd again.", "Look.")
    found = notes.result()
    assert found.verdict == "problem"
    assert found.finding == "Broken. Odd. Odd again. Fine."
    assert found.advice == "Mend. Look."


def test_a_check_that_finds_nothing_is_fine() -> None:
    assert Notes("x").result().verdict == "ok"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (share(3, 3), "all 3"),
        (share(0, 3), "none of 3"),
        (share(2, 3), "2 of 3"),
        (between(3, 3), "3"),
        (between(3, 5), "3 to 5"),
        (duration(1e-5), "less than 1 ms"),
        (duration(0.02), "20 ms"),
        (duration(0.34), "0.34 s"),
        (duration(45), "45 s"),
        (duration(600), "10 min"),
        (duration(3600 * 5), "5.0 h"),
        (duration(3600 * 72), "3.0 days"),
        (size(5e6), "5 MB"),
        (size(2.5e9), "2.5 GB"),
    ],
)
def test_numbers_in_words(words: str, expected: str) -> None:
    assert words == expected
