"""Each check of a reward catches one that is broken in its way; rlkit's own pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import rlkit
from rlkit.rewards.function import reward_class
from rlkit.testing import check_reward
from rlkit.testing import rewards as kit


@pytest.mark.parametrize("name", ["exact", "math", "overlong"])
def test_the_own_ones_pass(name: str) -> None:
    reward = rlkit.build("reward", name)
    try:
        check_reward(reward)
    finally:
        reward.close()


def texts(completions: list[str], gold: list[str], **columns: Any) -> list[float | None]:
    return [None if not text else float(text.strip() == gold[0]) for text in completions]


def chats(completions: list[Any], **columns: Any) -> list[float]:
    return [float(len(completion[-1]["content"])) for completion in completions]


def division(completions: list[str], **columns: Any) -> list[float]:
    return [1 / len(text) for text in completions]


def infinite(completions: list[str], **columns: Any) -> list[float]:
    return [float("inf")] * len(completions)


def relative(completions: list[str], **columns: Any) -> list[float]:
    return [1 / (len(completions) - 1)] * len(completions)


def marks(completions: list[str], **columns: Any) -> list[float]:
    return [2.0] * len(completions)


marks.marks_correctness = True  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", [texts, chats])
def test_one_form_of_answers_and_columns_by_name_are_enough(function: Callable[..., Any]) -> None:
    check_reward(reward_class(function)())


@pytest.mark.parametrize(
    ("check", "function", "said"),
    [
        (kit.every_answer_gets_a_finite_number_or_none, division, "division by zero"),
        (kit.every_answer_gets_a_finite_number_or_none, infinite, "must be finite"),
        (kit.one_answer_alone_gets_one_value, relative, "division by zero"),
        (
            kit.a_reward_that_marks_correctness_gives_at_most_full_marks,
            marks,
            "marks correctness and gives more than 1",
        ),
    ],
)
def test_a_broken_one_is_caught(
    check: Callable[[Any], None], function: Callable[..., Any], said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        check(reward_class(function)())
