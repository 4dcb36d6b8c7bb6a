"""Equal answers of a group share a class, for votes over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from rlkit.rewards.math.grouping import classes, final_answer
from rlkit.rewards.math.reward import Math, MathConfig
from tests.rewards.math.test_reward import BOMB


@pytest.fixture(scope="module")
def reward() -> Iterator[Math]:
    made = Math(MathConfig(timeout=2.0))
    yield made
    made.close()


def same_length(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    return [len(one) == len(other) for one, other in pairs]


def test_classes_are_numbered_in_the_order_in_which_they_first_occur() -> None:
    groups: list[list[str | None]] = [
        ["bb", "a", None, "c", "dd", "eee", "a"],
        [],
        [None],
        ["x", "yy"],
    ]
    assert classes(groups, same_length) == [[0, 1, None, 1, 0, 2, 1], [], [None], [0, 1]]


def test_a_text_is_never_compared_with_itself_and_all_groups_share_a_call() -> None:
    calls: list[list[tuple[str, str]]] = []

    def never(pairs: Sequence[tuple[str, str]]) -> list[bool]:
        calls.append(list(pairs))
        return [False] * len(pairs)

    assert classes([["1", "1", "2"], ["3", "4", "5"]], never) == [[0, 0, 1], [0, 1, 2]]
    assert calls == [[("1", "2"), ("3", "4"), ("3", "5")], [("4", "5")]]


def test_answers_written_in_several_ways_are_one_class(reward: Math) -> None:
    answers = [r"\frac12", "0.5", "2", None, r"\frac{2}{4}", "x = 2", "3"]
    assert reward.classes([answers, ["7"]]) == [[0, 0, 1, None, 0, 1, 2], [0]]


def test_an_order_that_counts_for_one_of_two_answers_keeps_them_apart(reward: Math) -> None:
    assert reward.classes([["1, 2, 3", "2, 1, 3"]]) == [[0, 1]]
    assert reward.classes([["2, 1, 3", "1, 2, 3"]]) == [[0, 1]]


@pytest.mark.slow
def test_a_comparison_beyond_the_limits_makes_two_classes(reward: Math) -> None:
    bomb = BOMB.removeprefix(r"\boxed{").removesuffix("}")
    assert reward.classes([["7", bomb, "7.0"]]) == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"So \boxed{\frac12}.", r"\frac12"),
        ("The answer is 5.", "5"),
        ("42", "42"),
        (r"<think>\boxed{1}", None),
        (r"\boxed{}", None),
        ("We do not know.\nPerhaps 5.", None),
        ("so " * 100, None),
        ("", None),
    ],
)
def test_the_answer_of_a_completion(completion: str, answer: str | None) -> None:
    assert final_answer(completion) == answer


def test_a_copy_of_the_prompt_is_no_answer() -> None:
    prompt = "Someone claims that the answer is 5. Is it?"
    assert final_answer(prompt + " No.", prompt) == "No."
