"""Several rewards on one batch: weights, None, and one-line errors."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from rlkit.errors import UserError
from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import from_import_path
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardResult, RewardSet


class Fixed(Reward):
    """Returns what it is given, and remembers its calls."""

    def __init__(self, values, weight=1.0, counts=None):
        super().__init__(RewardConfig(weight=weight))
        self.values, self._counts, self.calls = values, counts or {}, []

    def __call__(self, prompts, completions, **columns):
        self.calls.append((prompts, completions, columns))
        return self.values

    def counts(self):
        counts, self._counts = self._counts, {}
        return counts


def score(**rewards: Reward) -> RewardResult:
    return RewardSet(rewards).score(["p", "q"], ["c", "d"], [[1], [2, 3]], {"answer": ["x", "y"]})


def test_the_total_is_the_weighted_sum() -> None:
    result = score(a=Fixed([1.0, 0.5], weight=2.0), b=Fixed([3, -1], weight=-0.5))
    assert result.total == [0.5, 1.5]
    assert result.components == {"a": [1.0, 0.5], "b": [3.0, -1.0]}


def test_none_leaves_the_sum_and_all_none_is_none() -> None:
    result = score(a=Fixed([1.0, None], weight=2.0), b=Fixed([None, None]))
    assert result.total == [2.0, None]
    assert result.components == {"a": [1.0, None], "b": [None, None]}


def test_a_weight_of_zero_still_applies() -> None:
    assert score(a=Fixed([1.0, None], weight=0.0)).total == [0.0, None]


def test_the_weight_is_read_at_each_call() -> None:
    reward = Fixed([1.0, 1.0])
    rewards = RewardSet({"a": reward})
    for weight in (1.0, 3.0):
        reward.config = RewardConfig(weight=weight)
        assert rewards.score(["p", "q"], ["c", "d"], [[], []], {}).total == [weight, weight]


def test_each_reward_is_called_once_with_the_whole_batch() -> None:
    reward = Fixed([0.0, 0.0])
    score(a=reward)
    columns = {"completion_ids": [[1], [2, 3]], "answer": ["x", "y"]}
    assert reward.calls == [(["p", "q"], ["c", "d"], columns)]


def test_counts_are_summed_over_rewards_and_forgotten() -> None:
    a = Fixed([0, 0], counts={"timeouts": 1, "lost": 2})
    b = Fixed([0, 0], counts={"timeouts": 3})
    assert score(a=a, b=b).counts == {"timeouts": 4, "lost": 2}
    assert score(a=a, b=b).counts == {}


@pytest.mark.parametrize(
    "values",
    [
        [True, False],
        (1, 0),
        np.array([1.0, 0.0]),
        np.array([True, False]),
        torch.tensor([1, 0]),
        [torch.tensor(1.0), np.float32(0)],
        [np.bool_(True), np.int64(0)],
        [np.array(1.0), Fraction(0)],
    ],
    ids=str,
)
def test_every_kind_of_number_becomes_a_plain_float(values) -> None:
    component = score(a=Fixed(values)).components["a"]
    assert component == [1.0, 0.0]
    assert [type(v) for v in component] == [float, float]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "reward 'a' returned 1 values for 2 completions"),
        ([1.0] * 3, "reward 'a' returned 3 values for 2 completions"),
        (torch.zeros(3), "returned 3 values for 2"),
        (None, r"reward 'a' returned None \(NoneType\); it must return a list"),
        (0.5, r"returned 0.5 \(float\); it must return a list"),
        ("ab", r"returned 'ab' \(str\); it must return a list"),
        ({"x": 1, "y": 2}, r"\(dict\); it must return a list"),
        ([0.0, "good"], r"returned 'good' \(str\) for completion 1; it must be a number or None"),
        ([[1.0], 0.0], r"returned \[1.0\] \(list\) for completion 0"),
        ([1j, 0.0], r"\(complex\) for completion 0"),
        ([Decimal(1), 0.0], r"\(Decimal\) for completion 0"),
        ([np.str_("1"), 0.0], r"\(str\) for completion 0"),
        ([torch.zeros(1), 0.0], r"\(Tensor\) for completion 0"),
        ([float("nan"), 0.0], "returned nan for completion 0; it must be finite, or None"),
        ([0.0, float("-inf")], "returned -inf for completion 1"),
        ([torch.tensor(torch.inf), 0.0], "returned inf for completion 0"),
        ([10**400, 0.0], "returned inf for completion 0"),
    ],
)
def test_anything_but_one_finite_number_a_completion_is_one_line(values, message) -> None:
    with pytest.raises(UserError, match=message) as error:
        score(a=Fixed(values))
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("own_registry")
def test_an_exception_names_the_reward_the_error_and_the_line_of_user_code(tmp_path: Path) -> None:
    file = tmp_path / "broken_rewards.py"
    file.write_text(
        "import json\n\ndef parses(completions):\n    return [read(c) for c in completions]\n"
        "\ndef read(text):\n    return json.loads(text)\n"
    )
    cls = from_import_path("reward", f"{file}:parses").cls
    with pytest.raises(UserError) as error:
        score(parses=cls())
    text = str(error.value)
    assert text.startswith("reward 'parses' raised JSONDecodeError: Expecting value")
    assert f"({file}:7)" in text
    assert "\n" not in text
    assert isinstance(error.value.__cause__, ValueError)


@pytest.mark.usefixtures("own_registry")
def test_the_line_of_an_async_function_is_found_too(tmp_path: Path) -> None:
    file = tmp_path / "async_rewards.py"
    file.write_text("async def waits(completions):\n    return completions['x']\n")
    with pytest.raises(UserError, match=rf"TypeError.*{file}:2"):
        score(waits=from_import_path("reward", f"{file}:waits").cls())


def test_a_message_of_several_lines_becomes_one() -> None:
    def fails(completions):
        raise RuntimeError("first\n  second")

    with pytest.raises(UserError, match="RuntimeError: first second"):
        score(fails=reward_class(fails)())


def test_a_user_error_of_a_reward_passes_unchanged() -> None:
    def fails(completions):
        raise UserError("no column")

    with pytest.raises(UserError, match="^no column$"):
        score(fails=reward_class(fails)())


@pytest.mark.parametrize("name", ["prompts", "completions", "completion_ids"])
def test_a_column_with_a_name_of_the_run_is_refused(name: str) -> None:
    rewards = RewardSet({"a": Fixed([0.0])})
    with pytest.raises(UserError, match=f"column called '{name}'"):
        rewards.score(["p"], ["c"], [[1]], {name: ["x"]})


def test_responses_without_a_reward_are_refused() -> None:
    with pytest.raises(UserError, match="no reward is chosen"):
        RewardSet({}).score(["p"], ["c"], [[1]], {})


def test_a_run_that_generates_nothing_needs_no_reward() -> None:
    found = RewardSet({}).score([], [], [], {})
    assert (found.total, found.components, found.counts) == ([], {}, {})


def test_rewards_learn_why_responses_ended_if_that_is_known() -> None:
    reward = Fixed([0.0, 0.0])
    RewardSet({"a": reward}).score(["p", "q"], ["c", "d"], [[1], [2]], {}, ["stop", "length"])
    assert reward.calls[0][2]["finish_reasons"] == ["stop", "length"]
    with pytest.raises(UserError, match="a column called 'finish_reasons'"):
        RewardSet({"a": reward}).score(["p"], ["c"], [[1]], {"finish_reasons": ["stop"]})


def test_what_only_evaluates_is_reported_and_has_no_part_in_the_total() -> None:
    gold = Fixed([5.0, None])
    gold.config = RewardConfig(evaluation_only=True)
    result = score(a=Fixed([1.0, 2.0]), gold=gold)
    assert result.total == [1.0, 2.0]
    assert result.components["gold"] == [5.0, None]


def test_a_response_that_nothing_trained_on_applies_to_has_no_total() -> None:
    gold = Fixed([5.0, 4.0])
    gold.config = RewardConfig(evaluation_only=True)
    assert score(a=Fixed([None, 2.0]), gold=gold).total == [None, 2.0]
    assert score(gold=gold).total == [None, None]
