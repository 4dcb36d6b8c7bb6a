"""verl's reward functions as rewards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardSet
from rlkit.rewards.verl import scores_one

COLUMNS: dict[str, list[Any]] = {
    "completion_ids": [[1], [2]],
    "answer": ["1", "2"],
    "data_source": ["a", "b"],
    "reward_model": [{"ground_truth": 1}, {"style": "rule"}],
    "extra_info": [{"index": 0}, None],
}
CHATS = [[{"role": "assistant", "content": text}] for text in ("one", "two")]


def test_it_is_called_once_per_completion_with_what_verl_passes() -> None:
    """The second row has no ground truth of verl's, so its answer stands in."""
    calls: list[tuple[Any, ...]] = []

    def compute_score(
        data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None
    ) -> Any:
        calls.append((data_source, solution_str, ground_truth, extra_info))
        return 0.5 if data_source == "a" else {"score": 1.0, "acc": True}

    reward = reward_class(compute_score)()
    assert type(reward).__name__ == "compute_score"
    assert reward(["p", "q"], CHATS, **COLUMNS) == [0.5, 1.0]
    assert calls == [("a", "one", 1, {"index": 0}), ("b", "two", "2", None)]


def test_it_may_be_async_and_take_less() -> None:
    async def right(solution_str: str, ground_truth: Any) -> float:
        return float(solution_str == ground_truth)

    assert reward_class(right)()(["p", "q"], ["1", "2"], answer=["1", "1"]) == [1.0, 0.0]


def test_a_dict_needs_a_score() -> None:
    def lost(solution_str: str, ground_truth: Any) -> Any:
        return {"acc": 1}

    with pytest.raises(UserError, match="a dict without 'score': acc"):
        reward_class(lost)()(["p"], ["1"], answer=["1"])


def test_other_functions_are_called_as_before() -> None:
    def plain(completions: list[str], answer: list[str]) -> list[float]:
        return [float(c == a) for c, a in zip(completions, answer, strict=True)]

    assert not scores_one(plain)
    assert reward_class(plain)()(["p", "q"], ["1", "1"], answer=["1", "2"]) == [1.0, 0.0]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_exception_names_the_completion(is_async: bool) -> None:
    """The first one, whichever fails first."""

    def fails(solution_str: str, ground_truth: Any) -> float:
        return {"a": 1.0}[solution_str]

    async def fails_later(solution_str: str, ground_truth: Any) -> float:
        await asyncio.sleep({"a": 0.0, "b": 0.01, "c": 0.0}[solution_str])
        return fails(solution_str, ground_truth)

    found = RewardSet({"right": reward_class(fails_later if is_async else fails)()})
    with pytest.raises(UserError, match=r"'right' raised KeyError for completion 1: 'b' \(.*verl"):
        found.score(["p"] * 3, ["a", "b", "c"], [[]] * 3, {})
