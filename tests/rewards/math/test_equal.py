"""When two answers are equal: by their form, by proof, within a tolerance."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.equal import equal
from tests.rewards.math.cases import DIFFERENT, EQUAL


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers_are_equal_both_ways(gold: str, answer: str) -> None:
    assert equal(gold, answer, 0.0)
    assert equal(answer, gold, 0.0)


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_answers_that_only_look_equal_are_not(gold: str, answer: str) -> None:
    assert not equal(gold, answer, 0.0)


def test_a_text_too_long_to_be_read_equals_only_itself() -> None:
    long = " + ".join(["x"] * 1500)
    assert equal(long, f"${long}$", 0.0)
    assert not equal(long, "1500x", 0.0)


def test_a_relative_tolerance_admits_rounded_real_numbers_and_no_more() -> None:
    assert equal(r"\frac{1}{3}", "0.3333333", 1e-6)
    assert equal(r"40\pi", "125.6637", 1e-6)
    assert equal("(0.5, 1)", "(0.5000001, 1)", 1e-6)
    assert not equal(r"\frac{1}{3}", "0.333", 1e-6)
    assert not equal("0", "0.0000001", 1e-6)
    assert not equal("x", "1.0000001x", 1e-6)
    assert not equal("204_5", "205_5", 0.1)
