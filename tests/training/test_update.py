"""Learning rates, minibatches, preparation of log-probs, and the critic inside real steps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import rlkit
from rlkit.config.run import RunConfig, TrainConfig
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.training.metrics import explained_variance
from rlkit.training.prepare import prepare
from rlkit.training.update import Updater
from tests.steps import move, parts, prepared, rollout, scorer
from tests.tiny import make_policy


def test_learning_rates_by_hand() -> None:
    def rates(kind: str) -> list[float]:
        train = TrainConfig(steps=6, warmup_steps=2, lr_scheduler_type=kind)
        return [train.learning_rate_factor(step) for step in range(1, 7)]

    assert rates("constant") == [0.5, 1, 1, 1, 1, 1]
    assert rates("linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert rates("cosine") == pytest.approx([0.5, 1, 1, 0.8535534, 0.5, 0.1464466])


def test_prox_is_the_policy_now_where_a_group_is_old_and_behaviour_where_it_is_fresh() -> None:
    policy = make_policy()
    old = rollout(policy, step=1)
    move(policy)
    fresh = rollout(policy, step=3)
    batch = prepared(policy, fresh + old, 3, parts()).loss
    assert batch.age.tolist() == [0] * 16 + [2] * 16
    assert torch.equal(batch.prox_logp[:16], batch.behavior_logp[:16])
    everything = prepare(fresh + old, 3, parts(), scorer(policy, "rounded", budget=10_000)).loss
    torch.testing.assert_close(batch.prox_logp, everything.prox_logp, atol=3e-5, rtol=0)
    assert (batch.prox_logp[16:] - batch.behavior_logp[16:]).abs().max() > 0.01
    stored = torch.cat([s.behavior_logp for g in old for s in g.samples])
    assert torch.equal(batch.behavior_logp[16:][batch.mask[16:]], stored), "never recomputed"


def test_only_the_forwards_a_part_reads_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    groups = rollout(policy, step=1)
    calls: list[int] = []
    real = policy.logp

    def counted(tokens: Tokens) -> torch.Tensor:
        calls.append(len(tokens.lengths))
        return real(tokens)

    monkeypatch.setattr(policy, "logp", counted)
    prepared(policy, groups, 3, parts(loss="topr"))
    assert not calls, "TOPR reads the behaviour policy alone"
    prepared(policy, groups, 1, parts(loss="remix"))
    assert not calls, "fresh samples bring their own log-probs"
    prepared(policy, groups, 3, parts(loss="remix"))
    assert calls
    calls.clear()
    prepare(groups, 1, parts(loss="topr"), scorer(policy, "rounded"))
    assert not calls, "an engine in half precision is not measured where nothing reads prox"
    found = prepare(groups, 1, parts(loss="topr"), scorer(policy, "foreign")).metrics
    assert calls and "off_policy/engine_kl" in found


def test_demonstrations_are_refused_by_a_loss_that_cannot_use_them() -> None:
    policy = make_policy()
    groups = rollout(policy, step=1)
    expert = [replace(s, source="expert") for s in groups[0].samples]
    with pytest.raises(UserError, match="expert demonstrations"):
        prepared(policy, [replace(groups[0], samples=expert)], 1, parts())


def test_reward_stands_on_the_last_token_and_kl_in_the_reward_is_k1() -> None:
    policy = make_policy()
    anchor = rlkit.build("anchor", "base", placement="reward", beta=0.5)
    anchor.rebase(policy)
    move(policy)
    groups = rollout(policy, step=2)
    seen = {}

    class Spy:
        needs_critic = needs_greedy = False
        needs: frozenset[str] = frozenset()

        def __call__(self, b):
            seen["b"] = b
            return rlkit.build("advantage", "reward")(b)

    chosen = replace(parts(anchor="base"), anchor=anchor, advantage=Spy())  # type: ignore[arg-type]
    batch = prepared(policy, groups, 2, chosen).loss
    b = seen["b"]
    kl = torch.where(batch.mask, batch.prox_logp - batch.anchor_logp["base"], 0.0)
    assert kl.abs().max() > 0.01
    torch.testing.assert_close(b.reward, batch.reward - 0.5 * kl.sum(-1))
    last = batch.mask.sum(-1) - 1
    expected = -0.5 * kl
    expected[torch.arange(len(last)), last] += batch.reward
    torch.testing.assert_close(b.token_reward, expected)


@pytest.mark.parametrize(("groups", "sizes"), [(4, [2, 2]), (3, [2, 1]), (1, [1])])
def test_a_short_batch_is_cut_into_minibatches_of_whole_groups(
    groups: int, sizes: list[int]
) -> None:
    policy = make_policy()
    batch = prepared(policy, rollout(policy, 1, prompts=groups), 1, parts())
    config = RunConfig(output_dir="x", train=TrainConfig(prompts_per_step=4, minibatches=2))
    updater = Updater(config, policy, parts(), 6)
    cut = [rows for _, rows in updater._minibatches(batch, 1, 1)]
    assert [len(batch.loss.group[rows].unique()) for rows in cut] == sizes
    assert sorted(torch.cat(cut).tolist()) == list(range(4 * groups))
    again = [(number, rows.tolist()) for number, rows in updater._minibatches(batch, 2, 1)]
    assert again[: len(cut)] == [(0, rows.tolist()) for rows in cut]
    assert [number for number, _ in again] == [0] * len(cut) + [1] * len(cut)


def test_the_critic_learns_the_returns_and_its_figures_are_logged() -> None:
    policy = make_policy()
    chosen = parts(loss="ppo", advantage="gae")
    train = TrainConfig(prompts_per_step=4, critic_learning_rate=3e-3, learning_rate=1e-9)
    updater = Updater(RunConfig(output_dir="x", train=train), policy, chosen, 6)
    groups = rollout(policy, 1, n=8)
    losses = []
    for step in range(1, 31):
        batch = prepare(groups, step, chosen, scorer(policy, "own", updater.critic, 200))
        metrics = updater.run(batch, 1, step).metrics
        losses.append(metrics["critic/loss"])
    assert losses[-1] < 0.5 * losses[0]
    assert {"critic/clip_fraction", "critic/explained_variance"} <= metrics.keys()
    assert metrics["critic/explained_variance"] > 0.3


def test_what_the_buffer_observes_is_the_first_pass() -> None:
    policy = make_policy()
    groups = rollout(policy, step=1)
    batch = prepared(policy, groups, 1, parts())
    updater = Updater(
        RunConfig(output_dir="x", train=TrainConfig(learning_rate=1e-2)), policy, parts(), 6
    )
    scores = updater.run(batch, 2, 1).scores
    for group in groups:
        for sample in group.samples:
            score = scores[sample.sample_id]
            torch.testing.assert_close(score.logp, sample.behavior_logp, atol=3e-5, rtol=0)
            assert score.entropy > 0


def test_the_mismatch_of_an_engine_is_measured_on_this_steps_responses() -> None:
    """log-probs that are 0.1 too high everywhere: k3 = e^-0.1 - 1 + 0.1; nothing for exact ones."""
    policy = make_policy()
    old, fresh = rollout(policy, step=1), rollout(policy, step=3)
    for sample in (s for g in fresh for s in g.samples):
        sample.behavior_logp.add_(0.1)
    other = scorer(policy, "foreign", budget=10_000)
    for loss in ("remix", "topr"):
        metrics = prepare(fresh + old, 3, parts(loss), other).metrics
        assert metrics["off_policy/engine_difference_mean"] == pytest.approx(0.1, abs=1e-5)
        assert metrics["off_policy/engine_difference_max"] == pytest.approx(0.1, abs=1e-4)
        kl = math.exp(-0.1) - 1 + 0.1
        assert metrics["off_policy/engine_kl"] == pytest.approx(kl, abs=1e-4)
        assert not prepared(policy, fresh, 3, parts(loss)).metrics
        assert not prepare(old, 3, parts(loss), other).metrics


def test_a_spread_of_the_returns_that_is_rounding_alone_explains_nothing() -> None:
    """Returns are advantages plus values: equal ones come out with the rounding of the values."""
    values = torch.linspace(-1, 1, 8)[None]
    rounded = values - values + 1e-9 * torch.arange(8.0)
    mask = torch.ones(1, 8, dtype=torch.bool)
    assert explained_variance(values, rounded, mask) == 0.0
    assert explained_variance(values, values, mask) == 1.0
    assert explained_variance(values, 2 * values, mask) == pytest.approx(0.75)
