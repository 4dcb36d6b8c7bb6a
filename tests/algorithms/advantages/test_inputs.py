"""What a run computes because an estimator reads it: greedy rewards, and the policy's log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

import rlkit
from rlkit.batch import Request
from rlkit.models.policy import Policy
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardSet
from rlkit.rewards.weights import GREEDY
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.source import OnDemand
from rlkit.tasks.prompts import Prompts
from rlkit.training.collect import Collected, Collector
from rlkit.training.prepare import prepare
from rlkit.training.references import Parts
from tests.steps import plan_of, scorer
from tests.tiny import make_policy

ROWS = [{"prompt": f"{i}+{i}=", "answer": "1"} for i in range(4)]


def first_digit(prompts: Sequence[str], completions: Sequence[str], **_: object) -> list[float]:
    """A reward that tells responses apart."""
    return [float(ord(c[0]) if c else -1) for c in completions]


def collect(policy: Policy, advantage: str) -> tuple[Collected, HFRollout]:
    engine = HFRollout(HFConfig(max_completion_length=6))
    engine.start(policy, seed=0)
    engine.sync(1)
    rewards = RewardSet({"one": reward_class(first_digit)()})
    part = rlkit.build("advantage", advantage)
    supply = OnDemand(engine, greedy=part.needs_greedy)
    collector = Collector(supply, rewards, part, policy.tokenizer)
    prompts = Prompts("train", ROWS, policy.tokenizer)[:4]
    plan = [Request(prompt=p, n=3) for p in prompts]
    return collector.collect(plan_of(plan, 1), first_id=0), engine


def test_one_greedy_response_a_prompt_is_scored_and_not_counted() -> None:
    policy = make_policy()
    with_greedy, engine = collect(policy, "remax")
    plain, _ = collect(policy, "reward")
    single = [Request(prompt=g.prompt, n=1) for g in with_greedy.groups]
    answers = engine.generate(GenerationCall(single, ("greedy", 1, 0), greedy=True))
    for group, (answer,) in zip(with_greedy.groups, answers, strict=True):
        text = policy.tokenizer.decode(answer.response_ids, skip_special_tokens=True)
        expected = first_digit([""], [str(text)])[0]
        assert {s.extras[GREEDY] for s in group.samples} == {expected}
    counted, expected_counts = with_greedy.tally, plain.tally
    assert counted.rollouts == expected_counts.rollouts == 12
    assert counted == expected_counts
    assert [len(g.samples) for g in with_greedy.groups] == [3] * 4
    assert all(GREEDY not in s.extras for g in plain.groups for s in g.samples)


def parts(advantage: str) -> Parts:
    """TOPR reads the behavior policy alone."""
    return Parts(
        loss=rlkit.build("loss", "topr"),
        corrections=(),
        advantage=rlkit.build("advantage", advantage),
        anchor=rlkit.build("anchor", "none"),
    )


def test_remax_gets_the_greedy_rewards_of_its_responses() -> None:
    policy = make_policy()
    groups = collect(policy, "remax")[0].groups
    batch = prepare(groups, 1, parts("remax"), scorer(policy))
    samples = [s for g in groups for s in g.samples]
    expected = [s.reward - float(s.extras[GREEDY]) for s in samples]
    assert any(expected)
    assert batch.loss.advantage[:, 0].tolist() == pytest.approx(expected)


def test_an_estimator_that_reads_prox_has_it_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    groups, calls = collect(policy, "reward")[0].groups, []
    real = policy.logp

    def counted(tokens):
        calls.append(tokens)
        return real(tokens)

    monkeypatch.setattr(policy, "logp", counted)
    prepare(groups, 3, parts("gae"), scorer(policy))
    assert not calls
    prepare(groups, 3, parts("gae_vtrace"), scorer(policy))
    assert calls


def test_responses_cut_at_the_limit_are_marked() -> None:
    policy = make_policy()
    groups = collect(policy, "reward")[0].groups
    ends = [replace(g.samples[0], finish_reason="stop") for g in groups]
    cut = [replace(g.samples[1], finish_reason="length") for g in groups]
    mixed = [replace(g, samples=list(pair)) for g, *pair in zip(groups, ends, cut, strict=True)]
    batch = prepare(mixed, 1, parts("reward"), scorer(policy))
    assert batch.loss.truncated.tolist() == [False, True] * 4
