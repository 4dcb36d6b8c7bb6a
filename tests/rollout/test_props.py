"""PROPS: the objective by hand, the adapter's effect on the data, exact log-probs, resuming."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import Request
from rlkit.config.sampling import Sampling
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.output_adapter import OutputAdapter, States
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.head_probe import find_head
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.props import Props, props_objective, sampling_error, step_down
from tests.end_to_end.test_kills import assert_a_killed_run_ends_alike
from tests.tiny import make_policy, make_prompts

TEXTS = ["1+2=", "12+345=", "7="]
FIRST, SECOND = ("rollout", 1, 0), ("rollout", 2, 0)


def ready(**settings: Any) -> Policy:
    policy = make_policy(**settings)
    policy.head = find_head(policy, 0)
    return policy


def made(policy: Policy, seed: int = 3, **fields: Any) -> Props:
    config = HFConfig.model_validate({"max_completion_length": 6, "behavior": "props", **fields})
    engine = Props(HFRollout(config))
    engine.start(policy, seed)
    return engine


def plain(policy: Policy, seed: int = 3, **fields: Any) -> HFRollout:
    engine = HFRollout(HFConfig.model_validate({"max_completion_length": 6, **fields}))
    engine.start(policy, seed)
    return engine


def requests(policy: Policy, n: int = 4) -> list[Request]:
    return [Request(prompt=p, n=n) for p in make_prompts(policy, TEXTS)]


def flat(answers: Sequence[Sequence[Generation]]) -> list[Generation]:
    return [g for group in answers for g in group]


def texts(answers: Sequence[Sequence[Generation]]) -> list[list[int]]:
    return [g.response_ids.tolist() for g in flat(answers)]


def forward(policy: Policy, asked: Sequence[Request], answers: Sequence[Generation]) -> Tensor:
    """Log-probs of all tokens, one response after the other."""
    prompts = [r.prompt.ids for r in asked for _ in range(r.n)]
    logp = policy.logp(Tokens.of(prompts, [g.response_ids for g in answers]))
    return torch.cat([row[: len(g.logp)] for row, g in zip(logp, answers, strict=True)])


# ---- the objective


def test_the_objective_by_hand() -> None:
    """Ratios 1.5, 1, 0.8 and 0.5 with eps 0.3: max(r, clip r) = 1.5, 1, 0.8, 0.7."""
    log_ratio = torch.tensor([1.5, 1.0, 0.8, 0.5], dtype=torch.float64).log()
    distance = (0.5 - math.log(1.5) - 0.2 - math.log(0.8) - 0.5 - math.log(0.5)) / 4
    value, kl = props_objective(log_ratio, clip=0.3, kl=0.1)
    assert float(kl) == pytest.approx(distance)
    assert float(value) == pytest.approx((1.5 + 1 + 0.8 + 0.7) / 4 + 0.1 * distance)


def test_the_gradient_in_closed_form() -> None:
    """r / N while r >= 1 - eps, else 0, plus lambda (r - 1) / N; it has no upper clip."""
    log_ratio = torch.tensor([2.0, 0.1, -0.3, -0.5, -2.0], dtype=torch.float64)
    log_ratio.requires_grad_(True)
    value, _ = props_objective(log_ratio, clip=0.3, kl=0.25)
    (found,) = torch.autograd.grad(value, log_ratio)
    ratio = log_ratio.detach().exp()
    expected = torch.where(ratio >= 0.7, ratio, 0.0) + 0.25 * (ratio - 1)
    torch.testing.assert_close(found, expected / 5)


@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_no_log_ratio_overflows(gap: float) -> None:
    value, kl = props_objective(torch.tensor([gap]))
    assert value.isfinite() and kl.isfinite()


def test_the_sampling_error_by_hand() -> None:
    policy = torch.tensor([0.5, 0.25, 0.25])
    assert float(sampling_error(torch.tensor([2, 1, 1]), policy)) == pytest.approx(0.0)
    assert float(sampling_error(torch.tensor([4, 0, 0]), policy)) == pytest.approx(math.log(2))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(1)
    assert float(sampling_error(torch.tensor([3, 1, 0]), policy)) == pytest.approx(expected)


# ---- the adapter's steps


def states_of(policy: Policy) -> States:
    tokens = Tokens.of([torch.tensor([3, 4])], [torch.tensor([5, 6, 7, 5, 8, 9])])
    return States.of(policy, tokens)


def adapter_of(width: int = 32) -> OutputAdapter:
    draws = torch.Generator().manual_seed(0)
    return OutputAdapter(torch.randn(8, width, generator=draws) / width**0.5)


def test_every_token_that_is_there_becomes_less_probable() -> None:
    policy = ready()
    states, adapter = states_of(policy), adapter_of()
    assert policy.head is not None
    before = adapter.logp(policy.model, policy.head, states, 1.0)
    steps, kl = step_down(adapter, policy, states, HFConfig(behavior_kl_limit=None))
    after = adapter.logp(policy.model, policy.head, states, 1.0)
    assert steps == 16 and kl > 0 and (after < before).all()


def test_the_steps_end_at_the_limit_of_the_distance() -> None:
    policy = ready()
    settings = HFConfig(behavior_kl_limit=0.001, behavior_steps=50)
    steps, kl = step_down(adapter_of(), policy, states_of(policy), settings)
    assert 0 < steps < 50 and 0.001 < kl < 0.01


def test_a_ratio_below_the_clip_is_pushed_no_further() -> None:
    """With a large step every ratio is below 1 - eps at once, and later gradients are 0."""
    policy = ready()
    found = []
    for steps in (1, 5):
        adapter = adapter_of()
        settings = HFConfig(
            behavior_learning_rate=0.5,
            behavior_steps=steps,
            behavior_kl=0.0,
            behavior_kl_limit=None,
            behavior_clip=0.01,
        )
        step_down(adapter, policy, states_of(policy), settings)
        assert policy.head is not None
        with torch.no_grad():
            own = adapter_of().logp(policy.model, policy.head, states_of(policy), 1.0)
            logp = adapter.logp(policy.model, policy.head, states_of(policy), 1.0)
        found.append((logp - own).exp())
    assert (found[0] < 0.99).all() and (found[1] < 0.99).all()


# ---- what is sampled


def test_log_probs_are_the_adapters_and_not_the_policys() -> None:
    policy = ready()
    engine = made(policy, behavior_learning_rate=0.02, behavior_kl_limit=None)
    asked = requests(policy, 8)
    seen: list[OutputAdapter] = []
    real = engine._adapter

    def noted(*args: Any) -> OutputAdapter | None:
        adapter = real(*args)
        if adapter is not None:
            seen.append(adapter)
        return adapter

    engine._adapter = noted  # type: ignore[method-assign,assignment]
    found = engine.generate(GenerationCall(asked, FIRST))
    halves = [flat([group[:4] for group in found]), flat([group[4:] for group in found])]
    half = [Request(prompt=r.prompt, n=4) for r in asked]
    own = [forward(policy, half, answers) for answers in halves]
    (adapter,) = seen
    with adapter.on(policy.model):
        adapted = forward(policy, half, halves[1])
    recorded = [torch.cat([g.logp for g in answers]) for answers in halves]
    torch.testing.assert_close(recorded[0], own[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(recorded[1], adapted, atol=1e-5, rtol=0)
    assert (recorded[1] - own[1]).abs().max() > 0.05 and not engine.matches_trainer
    assert not policy.model.get_output_embeddings()._forward_pre_hooks


def test_in_one_round_without_a_past_it_is_the_policy() -> None:
    policy = ready()
    engine = made(policy, behavior_rounds=1)
    found = engine.generate(GenerationCall(requests(policy), FIRST))
    whole = plain(policy).generate(GenerationCall(requests(policy), FIRST, numbers=range(12)))
    assert texts(found) == texts(whole)
    assert engine.metrics()["rollouts/behavior_steps"] == 0


def test_the_last_visit_of_the_prompts_counts_and_of_no_others() -> None:
    policy = ready()
    engine = made(policy, behavior_rounds=1)
    asked = requests(policy)
    first = engine.generate(GenerationCall(asked, FIRST))
    engine.metrics()
    engine.generate(GenerationCall(asked[1:2], SECOND))
    assert engine.metrics()["rollouts/behavior_tokens"] == sum(len(g.logp) for g in first[1])
    engine.generate(GenerationCall(asked[:1], ("rollout", 3, 0)))
    found = engine.metrics()
    assert found["rollouts/behavior_tokens"] == sum(len(g.logp) for g in first[0])
    assert found["rollouts/behavior_steps"] > 0 and found["time/behavior"] > 0
    assert engine.metrics() == {}


@pytest.mark.parametrize(("n", "rounds"), [(5, 2), (3, 3), (2, 4), (1, 2)])
def test_every_response_is_there_whatever_the_rounds(n: int, rounds: int) -> None:
    policy = ready()
    engine = made(policy, behavior_rounds=rounds)
    found = engine.generate(GenerationCall(requests(policy, n), FIRST))
    assert [len(group) for group in found] == [n] * 3
    assert all(g.policy_version.tolist() == [1] * len(g.logp) for g in flat(found))
    part = GenerationCall(requests(policy, n), FIRST, part=slice(1, 2))
    again = made(policy, behavior_rounds=1).generate(part)
    whole = made(policy, behavior_rounds=1).generate(GenerationCall(requests(policy, n), FIRST))
    assert texts(again) == texts(whole[1:2])


def test_the_data_is_more_like_the_policy_than_its_own_samples() -> None:
    """KL(data || policy) of the first token, 64 responses to a prompt, 6 times 3 prompts.

    Eight rounds, the paper's other settings: about 0.09 nats against 0.12.
    """
    policy = ready()
    with torch.no_grad():
        logits = [
            policy.model(input_ids=r.prompt.ids[None]).logits[0, -1] for r in requests(policy)
        ]

    def error(engine: HFRollout | Props) -> float:
        total = 0.0
        for step in range(6):
            call = GenerationCall(requests(policy, 64), ("rollout", step, 0))
            for group, own in zip(engine.generate(call), logits, strict=True):
                counts = torch.bincount(torch.tensor(texts([group])).flatten(), minlength=16)
                total += float(sampling_error(counts, own.softmax(-1)))
        return total / 18

    own = error(plain(policy, max_completion_length=1))
    props = error(made(policy, max_completion_length=1, behavior_rounds=8, behavior_visits=0))
    assert props < 0.9 * own


def test_evaluations_and_greedy_responses_are_the_policys() -> None:
    policy = ready()
    engine = made(policy)
    engine.generate(GenerationCall(requests(policy), FIRST))
    kept = engine.visits.tokens
    engine.metrics()
    for call in (
        GenerationCall(requests(policy), ("eval", 1, 0)),
        GenerationCall(requests(policy, 1), ("greedy", 1, 0), greedy=True),
        GenerationCall(requests(policy), FIRST, sampling=Sampling(temperature=0.5)),
    ):
        assert texts(engine.generate(call)) == texts(plain(policy).generate(call))
    assert engine.visits.tokens == kept and engine.metrics() == {}


def test_a_policy_in_training_mode_samples_the_same() -> None:
    found = []
    for training in (False, True):
        policy = ready(attention_dropout=0.5)
        engine = made(policy)
        policy.model.train(training)
        found.append(texts(engine.generate(GenerationCall(requests(policy), FIRST))))
        assert policy.model.training == training
    assert found[0] == found[1]


def test_an_output_layer_that_cannot_be_read_is_refused() -> None:
    policy = make_policy()
    engine = made(policy)  # evaluations still run
    engine.generate(GenerationCall(requests(policy), ("eval", 1, 0)))
    with pytest.raises(UserError, match="behavior=props needs a plain linear output layer"):
        engine.generate(GenerationCall(requests(policy), FIRST))


# ---- resuming


def test_an_engine_that_takes_up_the_state_goes_on_bit_for_bit() -> None:
    policy = ready()
    engine, other = made(policy), made(policy)
    engine.generate(GenerationCall(requests(policy), FIRST))
    other.load_state_dict(engine.state_dict())
    call = GenerationCall(requests(policy), SECOND)
    mine, theirs = (flat(e.generate(call)) for e in (engine, other))
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a.response_ids, b.response_ids) and torch.equal(a.logp, b.logp)
    assert texts([mine]) != texts(made(policy).generate(call)), "the past counts"


def test_memory_is_bounded() -> None:
    policy = ready()
    engine = made(policy, behavior_tokens=50)
    engine.generate(GenerationCall(requests(policy), FIRST))
    assert 0 < engine.visits.tokens <= 50 and not engine.visits.of("train-0")


AGAIN = ("buffer=prompt_replay", "buffer.cooldown=1", "buffer.low=0", "buffer.high=1")
"""Prompts come again soon."""


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_the_uninterrupted_one(tmp_path: Path) -> None:
    rows = assert_a_killed_run_ends_alike(tmp_path, *AGAIN, "algorithm=props")
    steps = [row for row in rows if "policy/loss" in row]
    assert all(row["rollouts/behavior_kl"] > 0 and row["off_policy/engine_kl"] > 0 for row in steps)
