"""pass@k by its definition, and what an evaluation asks for and reports."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch

from rlkit.config.run import EvalConfig
from rlkit.evaluation.evaluator import Evaluator, pass_at_k
from rlkit.interfaces import Reward
from rlkit.models.policy import Policy
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine
from rlkit.tasks.prompts import Prompts
from tests.steps import ROWS, has_one


@pytest.mark.parametrize("correct", range(5))
@pytest.mark.parametrize("k", [1, 2, 4])
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one(correct: int, k: int) -> None:
    draws = list(combinations([True] * correct + [False] * (4 - correct), k))
    assert pass_at_k(4, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


class Scripted(RolloutEngine):
    """Answers the first sampled responses of each problem with a 1, as the script says."""

    def __init__(self, right: list[int], greedy: list[int]) -> None:
        super().__init__()
        self.right, self.greedy = right, greedy
        self.calls: list[GenerationCall] = []

    def start(self, policy: Policy, seed: int) -> None:
        raise AssertionError

    def sync(self, step: int) -> None:
        raise AssertionError

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        self.calls.append(call)
        right = self.greedy if call.greedy else self.right
        return [
            [answer(i < wanted) for i in range(request.n)]
            for request, wanted in zip(call.requests, right, strict=True)
        ]


def answer(right: bool) -> Generation:
    ids = torch.tensor([3 if right else 4, 1])
    return Generation(
        response_ids=ids,
        logp=torch.zeros(2),
        policy_version=torch.zeros(2, dtype=torch.int32),
        finish_reason="stop",
        extras={},
    )


def evaluator(
    policy: Policy, engine: Scripted, reward: Any = has_one, rows: Any = ROWS, **config: Any
) -> Evaluator:
    prompts = Prompts("eval", rows, policy.tokenizer)
    one: Reward = reward_class(reward)()
    return Evaluator(
        prompts, RewardSet({"one": one}), engine, policy.tokenizer, EvalConfig(**config)
    )


def test_an_evaluation_reports_sampled_and_greedy_shares(policy: Policy) -> None:
    """3, 1 and 0 right of 3: pass@1 4/9; pass@2 1, 2/3 and 0; one of three greedy answers."""
    engine = Scripted(right=[3, 1, 0], greedy=[0, 1, 0])
    found = evaluator(policy, engine, problems=3, samples=3, k=2).run(step=7)
    assert found == {
        "eval/pass@1": pytest.approx(4 / 9),
        "eval/pass@2": pytest.approx(5 / 9),
        "eval/greedy": pytest.approx(1 / 3),
    }
    sampled, greedy = engine.calls
    assert [r.n for r in sampled.requests] == [3, 3, 3] and not sampled.greedy
    assert [r.n for r in greedy.requests] == [1, 1, 1] and greedy.greedy
    assert sampled.stream != greedy.stream and sampled.stream[1] == 7, "draws of their own"


def test_an_evaluation_tells_how_far_it_is(policy: Policy) -> None:
    told: list[tuple[str, int, int]] = []
    engine = Scripted([1, 0], [1, 1])
    found = evaluator(policy, engine, problems=2)
    found.run(0, lambda task, done, of: told.append((task, done, of)))
    assert told == [("evaluating", 0, 2)], "an engine may tell nothing"
    for call in engine.calls:
        assert call.tell is not None
        call.tell(1)
    assert told[1:] == [("evaluating", 1, 2), ("evaluating greedily", 1, 2)]


def test_pass_at_1_is_not_reported_twice(policy: Policy) -> None:
    found = evaluator(policy, Scripted([1, 0], [1, 1]), problems=2).run(step=0)
    assert found == {"eval/pass@1": 0.5, "eval/greedy": 1.0}


@pytest.mark.parametrize(("value", "right"), [(1.0, 1.0), (2.0, 1.0), (0.99, 0.0), (None, 0.0)])
def test_full_marks_alone_are_right(policy: Policy, value: float | None, right: float) -> None:
    def same(completions: list[str], **columns: Any) -> list[float | None]:
        return [value] * len(completions)

    found = evaluator(policy, Scripted([1, 1], [1, 1]), same, problems=2).run(step=0)
    assert found["eval/pass@1"] == right


def test_pass_at_1_is_reported_by_source(policy: Policy) -> None:
    """3, 1 and 0 right of 3, the first two of one source; the last row has none."""
    rows = [{**row, "data_source": name} for row, name in zip(ROWS, ("a", "a"), strict=False)]
    engine = Scripted(right=[3, 1, 0], greedy=[0, 1, 0])
    found = evaluator(policy, engine, rows=[*rows, ROWS[2]], problems=3, samples=3).run(step=1)
    by_source = {key: value for key, value in found.items() if "source" in key}
    assert by_source == {"eval/source/a/pass@1": pytest.approx(2 / 3)}


@pytest.mark.parametrize(("judge", "right"), [(None, 0.0), ("never", 0.0), ("one", 1.0)])
def test_the_order_of_the_rewards_does_not_matter_to_the_one_that_counts(
    policy: Policy, judge: str | None, right: float
) -> None:
    def never(completions: list[str], **columns: Any) -> list[float | None]:
        return [-1.0] * len(completions)

    both: dict[str, Reward] = {"never": reward_class(never)(), "one": reward_class(has_one)()}
    prompts = Prompts("eval", ROWS, policy.tokenizer)
    engine = Scripted([1, 1], [1, 1])
    config = EvalConfig(problems=2)
    found = Evaluator(prompts, RewardSet(both), engine, policy.tokenizer, config, judge).run(0)
    assert found["eval/pass@1"] == right
