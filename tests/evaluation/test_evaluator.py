"""What an evaluation asks for and reports."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.config.run import EvalConfig
from rlkit.config.sampling import Sampling
from rlkit.evaluation.contest import Contest, responses_of
from rlkit.evaluation.evaluator import Evaluator
from rlkit.interfaces import Reward, RewardConfig
from rlkit.models.policy import Policy
from rlkit.registry import build
from rlkit.rewards.function import reward_class
from rlkit.rewards.judges import Judges
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine
from rlkit.tasks.prompts import Prompts
from tests.steps import ROWS, has_one


class Scripted(RolloutEngine):
    """Answers the first sampled responses of each problem with a 1, as the script says."""

    def __init__(self, right: list[int], greedy: list[int], reason: str = "stop") -> None:
        super().__init__()
        self.reason = reason
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
            [answer(i < wanted, self.reason if i == 0 else "stop") for i in range(request.n)]
            for request, wanted in zip(call.requests, right, strict=True)
        ]


def answer(right: bool, reason: str) -> Generation:
    ids = torch.tensor([3 if right else 4, 1])
    return Generation(
        response_ids=ids,
        logp=torch.zeros(2),
        policy_version=torch.zeros(2, dtype=torch.int32),
        finish_reason=reason,
        extras={},
    )


def evaluator(
    policy: Policy, engine: Scripted, reward: Any = has_one, rows: Any = ROWS, **config: Any
) -> Evaluator:
    return Evaluator(
        prompts=Prompts("eval", rows, policy.tokenizer),
        rewards=RewardSet({"one": reward_class(reward)()}),
        engine=engine,
        tokenizer=policy.tokenizer,
        config=EvalConfig(**config),
    )


def test_an_evaluation_reports_its_figures_with_errors_of_the_scores(policy: Policy) -> None:
    """3, 1 and 0 right of 3: pass@1 of the problems 1, 1/3 and 0, whose mean has the standard error
    sqrt(7/81); pass@2 1, 2/3 and 0; one of three greedy answers. Each response has two tokens."""
    engine = Scripted(right=[3, 1, 0], greedy=[0, 1, 0])
    found = evaluator(policy, engine, problems=3, samples=3, k=[2, 3]).run(step=7)
    assert found == pytest.approx(
        {
            "eval/pass@1": 4 / 9,
            "eval/pass@1_error": (7 / 81) ** 0.5,
            "eval/pass@2": 5 / 9,
            "eval/pass@2_error": (7 / 81) ** 0.5,
            "eval/pass@3": 2 / 3,
            "eval/pass@3_error": 1 / 3,
            "eval/greedy": 1 / 3,
            "eval/greedy_error": 1 / 3,
            "eval/reward": 4 / 9,
            "eval/reward/one/mean": 4 / 9,
            "eval/mean_length": 2.0,
            "eval/truncated": 0.0,
            "eval/reflection_rate": 0.0,
        }
    )
    sampled, greedy = engine.calls
    assert [r.n for r in sampled.requests] == [3, 3, 3] and not sampled.greedy
    assert [r.n for r in greedy.requests] == [1, 1, 1] and greedy.greedy
    assert sampled.stream != greedy.stream and sampled.stream[1] == 7, "draws of their own"
    assert sampled.sampling is None and sampled.evaluates and greedy.evaluates


def test_the_sampling_of_an_evaluation_reaches_the_engine(policy: Policy) -> None:
    engine = Scripted([1, 0], [1, 1])
    own = Sampling(temperature=0.3, max_completion_length=7)
    evaluator(policy, engine, problems=2, sampling=own).run(step=0)
    assert [call.sampling for call in engine.calls] == [own, own]


def test_greedy_answers_may_be_left_out(policy: Policy) -> None:
    engine = Scripted([1, 0], [1, 1])
    found = evaluator(policy, engine, problems=2, greedy=False).run(step=0)
    assert found["eval/pass@1"] == 0.5 and not any("greedy" in name for name in found)
    assert len(engine.calls) == 1


def test_what_is_cut_off_and_what_reflects_is_counted(policy: Policy) -> None:
    """The first of two responses each is cut off; "1" is called a second look here."""
    engine = Scripted([2, 0], [1, 1], reason="length")
    found = evaluator(policy, engine, problems=2, samples=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlkit.evaluation.reflection.WORDS", ("1",))
        metrics = found.run(step=0)
    assert metrics["eval/truncated"] == 0.5 and metrics["eval/reflection_rate"] == 0.5


def test_rewards_are_averaged_over_what_they_apply_to(policy: Policy) -> None:
    """Total 0.5 one + 2 some: a problem with no reward at all does not count as 0."""

    class Some(Reward):
        def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            return [None, 3.0, None, None][: len(completions)]

    class Half(Reward):
        def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            return [1.0, 0.0, None, None][: len(completions)]

    half, some = Half(RewardConfig(weight=0.5)), Some(RewardConfig(weight=2.0))
    found = evaluator(policy, Scripted([0, 0], [0, 0]), problems=2, samples=2, greedy=False)
    found.rewards = RewardSet({"half": half, "some": some})
    metrics = found.run(step=0)
    assert metrics["eval/reward"] == (0.5 + 6.0) / 2
    assert metrics["eval/reward/half/mean"] == 0.5 and metrics["eval/reward/some/mean"] == 3.0


def test_a_reward_that_never_gives_full_marks_is_warned_of_once(policy: Policy) -> None:
    told: list[str] = []

    def most(completions: list[str], **columns: Any) -> list[float]:
        return [0.9 if "1" in text else 0.2 for text in completions]

    found = evaluator(policy, Scripted([1, 0], [0, 0]), most, problems=2)
    found.say = told.append
    assert found.run(step=0)["eval/pass@1"] == 0
    found.run(step=1)
    (line,) = told
    assert "the reward 'one' gives it 1" in line and "the most was 0.9" in line
    assert "eval.reward=" in line
    right = evaluator(policy, Scripted([0, 0], [0, 1]), problems=2)
    right.say = told.append
    right.run(step=0)
    assert len(told) == 1, "one right greedy answer is enough"


def test_the_answers_are_kept(policy: Policy) -> None:
    kept: list[tuple[int, int, int]] = []
    found = evaluator(policy, Scripted([1, 0], [1, 1]), problems=2)
    found.keep = lambda step, sampled, greedy: kept.append((step, len(sampled), len(greedy)))
    found.run(step=5)
    assert kept == [(5, 2, 2)]


def test_an_evaluation_tells_how_far_it_is(policy: Policy) -> None:
    told: list[tuple[str, int, int]] = []
    engine = Scripted([1, 0], [1, 1])
    found = evaluator(policy, engine, problems=2)
    found.run(0, lambda task, done, of: told.append((task, done, of)))
    began = [("evaluating", 0, 2), ("evaluating greedily", 0, 2)]
    assert told == began, "an engine may tell nothing"
    for call in engine.calls:
        assert call.tell is not None
        call.tell(1)
    assert told[2:] == [("evaluating", 1, 2), ("evaluating greedily", 1, 2)]


@pytest.mark.parametrize(("value", "right"), [(1.0, 1.0), (2.0, 1.0), (0.99, 0.0), (None, 0.0)])
def test_full_marks_alone_are_right(policy: Policy, value: float | None, right: float) -> None:
    def same(completions: list[str], **columns: Any) -> list[float | None]:
        return [value] * len(completions)

    found = evaluator(policy, Scripted([1, 1], [1, 1]), same, problems=2).run(step=0)
    assert found["eval/pass@1"] == right


def test_what_happened_to_rewards_is_among_the_metrics_and_told(policy: Policy) -> None:
    class Failing(Reward):
        def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            return [None] * len(completions)

        def counts(self) -> dict[str, int]:
            return {"timeouts": 0, "errors": 2}

    made = evaluator(policy, Scripted([1, 1], [1, 1]), problems=2)
    assert made.evaluate(0).failed is None
    made.rewards = RewardSet({"one": Failing()})
    found = made.evaluate(0)
    assert found.metrics["eval/errors"] == 4.0 and "eval/timeouts" not in found.metrics
    assert found.failed and "of 4 responses" in found.failed and "(4 errors)" in found.failed


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
    made = evaluator(policy, Scripted([1, 1], [1, 1]), problems=2)
    made.rewards, made.judges = RewardSet(both), None if judge is None else Judges(judge)
    assert made.run(0)["eval/pass@1"] == right


def test_the_most_frequent_answer_is_voted_for_where_the_math_reward_judges(policy: Policy) -> None:
    """1 is right, and the answers are 1 1 4 once and 1 4 4 twice: maj@3 is 1, 0 and 0. Of the three
    pairs of 1 1 4 one is right and two are ties, 2/3; of 1 4 4 one is wrong, 1/3."""
    found = evaluator(policy, Scripted([2, 1, 1], [1, 1, 1]), problems=3, samples=3, k=[2, 3])
    rows = [{**row, "answer": "1"} for row in ROWS]
    found.prompts = Prompts("eval", rows, policy.tokenizer)
    found.rewards = RewardSet({"math": build("reward", "math")})
    try:
        metrics = found.run(step=0)
    finally:
        found.rewards.rewards["math"].close()
    assert metrics["eval/pass@1"] == pytest.approx(4 / 9)
    assert metrics["eval/maj@3"] == pytest.approx(1 / 3)
    assert metrics["eval/maj@2"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)
    assert "eval/maj@3_error" in metrics
    once = evaluator(policy, Scripted([1, 1], [1, 1]), problems=2).run(step=0)
    assert not any("maj" in name for name in once), "no votes with k = 1, or by another reward"


def test_the_win_rate_is_a_score_with_an_error(policy: Policy) -> None:
    """Right answers win against a reference without a 1, wrong ones tie: 1, 3/4 and 1/2."""
    rows = [{**row, "reference": "2"} for row in ROWS[:3]]
    made = evaluator(policy, Scripted(right=[2, 1, 0], greedy=[0, 0, 0]), rows=rows, samples=2)
    made.contest = Contest(
        responses=responses_of("reference", rows),
        reward="one",
        rewards=made.rewards,
        tokenizer=policy.tokenizer,
    )
    found = made.run(step=1)
    assert found["eval/win_rate"] == pytest.approx(0.75)
    assert found["eval/win_rate_error"] == pytest.approx((1 / 16 / 3) ** 0.5)
    assert found["eval/win_margin"] == pytest.approx(0.5)
