"""Right and wrong answers of every kind: what is equal is accepted, and nothing that is near."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.rewards.math.equal import alike, equal, matches
from tests.rewards.math import right_symbols, right_texts, trap_symbols, trap_texts

BOXED = ("numbers",)


def flat(kinds: dict[str, list[tuple[str, str]]], boxed: tuple[str, ...]) -> list[tuple[str, str]]:
    """The pairs of all kinds, with a box around the answers of some."""
    return [
        (gold, rf"So $\boxed{{{answer}}}$." if kind in boxed else answer)
        for kind, pairs in kinds.items()
        for gold, answer in pairs
    ]


SYMBOLS = flat(right_symbols.RIGHT, ())
RIGHT = flat(right_symbols.RIGHT, tuple(right_symbols.RIGHT)) + flat(right_texts.RIGHT, BOXED)
TRAPS = flat(trap_symbols.TRAPS, tuple(trap_symbols.TRAPS)) + flat(trap_texts.TRAPS, BOXED)
FORMS = sorted({answer for pair in SYMBOLS for answer in pair})


def test_there_are_at_least_as_many_traps_as_right_answers() -> None:
    assert len(TRAPS) >= len(RIGHT) >= 250
    assert right_symbols.RIGHT.keys() == trap_symbols.TRAPS.keys()
    assert right_texts.RIGHT.keys() == trap_texts.TRAPS.keys()


@pytest.mark.parametrize(("gold", "text"), RIGHT)
def test_a_right_answer_is_accepted(gold: str, text: str) -> None:
    assert matches(gold, text, 0.0)


@pytest.mark.parametrize(("gold", "text"), TRAPS)
def test_a_trap_is_not_fallen_for(gold: str, text: str) -> None:
    assert not matches(gold, text, 0.0)


@pytest.mark.parametrize(("gold", "answer"), SYMBOLS)
def test_equality_holds_both_ways(gold: str, answer: str) -> None:
    assert alike(gold, answer, 0.0) and alike(answer, gold, 0.0)


@given(st.sampled_from(FORMS), st.sampled_from(["{}", " {} ", "${}$", r"\({}\)", "{}."]))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_an_answer_equals_itself_whatever_stands_around_it(answer: str, around: str) -> None:
    assert alike(answer, around.replace("{}", answer), 0.0)


@given(st.sampled_from(FORMS), st.sampled_from(FORMS))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_no_answer_is_the_gold_one_way_only(one: str, other: str) -> None:
    assert equal(one, other, 0.0) == equal(other, one, 0.0)
