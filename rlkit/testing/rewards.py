"""What a reward must do."""

from __future__ import annotations

import inspect
from typing import Any

from rlkit.errors import UserError
from rlkit.interfaces import Reward, RunContext
from rlkit.rewards.scoring import FINISH_REASONS, RewardResult, score_all, wants_messages
from rlkit.testing.base import require

ANSWERS = ("2", "The answer is 3.", "", "2")
LONGEST = 64
CALL = ("prompts", "completions", "completion_ids", FINISH_REASONS, "columns")


def columns_of(reward: Reward[Any]) -> dict[str, list[Any]]:
    """A column of every name the reward's signature asks for, beside `answer` and `solution`."""
    called = getattr(type(reward), "function", type(reward).__call__)
    asked = [name for name in inspect.signature(called).parameters if name not in ("self", *CALL)]
    return {name: ["2"] * len(ANSWERS) for name in ("answer", "solution", *asked)}


def scores(reward: Reward[Any], rows: slice, *, chat: bool) -> RewardResult:
    """The reward of some example answers, as texts or as messages."""
    reward.open(RunContext(max_completion_length=LONGEST))
    given: dict[str, list[Any]] = {
        "completion_ids": [[1] * len(answer) for answer in ANSWERS],
        FINISH_REASONS: ["stop"] * len(ANSWERS),
        **columns_of(reward),
    }
    prompts: list[Any] = ["1+1="] * len(ANSWERS)
    completions: list[Any] = list(ANSWERS)
    if chat:
        prompts = [[{"role": "user", "content": each}] for each in prompts]
        completions = [[{"role": "assistant", "content": each}] for each in completions]
    columns = {name: values[rows] for name, values in given.items()}
    return score_all({type(reward).__name__: reward}, prompts[rows], completions[rows], columns)


def form_of(reward: Reward[Any]) -> bool:
    """Whether it reads messages; it may read texts, or both. AssertionError if it reads neither."""
    try:
        scores(reward, slice(None), chat=False)
    except UserError as error:
        if not wants_messages(error):
            raise AssertionError(str(error)) from error
        first = error
    else:
        return False
    try:
        scores(reward, slice(None), chat=True)
    except UserError:
        raise AssertionError(str(first)) from first
    return True


def every_answer_gets_a_finite_number_or_none(reward: Reward[Any]) -> None:
    """It is called by name with texts or messages, an empty answer among them."""
    form_of(reward)


def one_answer_alone_gets_one_value(reward: Reward[Any]) -> None:
    """Whatever the batch: the last micro-batch of an evaluation may hold one answer."""
    chat = form_of(reward)
    for place in range(len(ANSWERS)):
        try:
            scores(reward, slice(place, place + 1), chat=chat)
        except UserError as error:
            raise AssertionError(str(error)) from error


def a_reward_that_marks_correctness_gives_at_most_full_marks(reward: Reward[Any]) -> None:
    """1 is right, less is wrong: an evaluation counts values of 1 or more."""
    (values,) = scores(reward, slice(None), chat=form_of(reward)).components.values()
    marks = [value for value in values if value is not None]
    require(
        reward.marks_correctness is not True or all(value <= 1 for value in marks),
        "the reward marks correctness and gives more than 1",
    )


REWARD = (
    every_answer_gets_a_finite_number_or_none,
    one_answer_alone_gets_one_value,
    a_reward_that_marks_correctness_gives_at_most_full_marks,
)
