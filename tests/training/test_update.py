"""Minibatches, and the critic inside real updates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.config.run import RunConfig, TrainConfig
from rlkit.errors import UserError
from rlkit.training.prepare import prepare
from rlkit.training.update import Updater
from tests.steps import parts, prepared, rollout, scorer
from tests.tiny import make_policy


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


def test_no_gradient_stays_in_memory_after_the_updates() -> None:
    """Through sync, anchors and the next generation."""
    policy, chosen = make_policy(), parts(loss="ppo", advantage="gae")
    updater = Updater(RunConfig(output_dir="x", train=TrainConfig()), policy, chosen, 6)
    critic = updater.critic
    assert critic is not None
    before = [p.detach().clone() for p in (*policy.model.parameters(), *critic.parameters())]
    batch = prepare(rollout(policy, 1), 1, chosen, scorer(policy, "own", critic))
    updater.run(batch, 1, 1)
    after = [*policy.model.parameters(), *critic.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)


def test_an_optimizer_that_does_not_fit_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its moments are allocated in the first step; smaller micro-batches would not help."""
    policy = make_policy()
    updater = Updater(RunConfig(output_dir="x", train=TrainConfig()), policy, parts(), 6)

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(updater.learner.optimizer, "step", full)
    with pytest.raises(UserError, match=r"in the optimizer step.*model\.lora\.r=16"):
        updater.run(prepared(policy, rollout(policy, 1), 1, parts()), 1, 1)
    assert updater.micro.halvings == 0


@pytest.mark.parametrize(("loss", "advantage"), [("ppo", "gae"), ("online_dpo", "group_mean")])
def test_an_update_that_does_not_fit_is_done_in_smaller_micro_batches(
    monkeypatch: pytest.MonkeyPatch, loss: str, advantage: str
) -> None:
    """The policy's and the critic's; the weights are those of a run with small ones."""
    weights = []
    for tokens, most in ((400, 110), (100, 10**6)):
        policy, chosen = make_policy(), parts(loss, "base", advantage)
        chosen.anchor.rebase(policy)
        train = TrainConfig(learning_rate=1e-2, micro_batch_tokens=tokens)
        updater = Updater(RunConfig(output_dir="x", train=train), policy, chosen, 6)
        batch = prepare(rollout(policy, 1), 1, chosen, scorer(policy, "own", updater.critic))
        real = policy.model.forward

        def forward(*args: Any, most: int = most, real: Any = real, **inputs: Any) -> Any:
            if inputs["input_ids"].numel() > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(*args, **inputs)

        monkeypatch.setattr(policy.model, "forward", forward)
        assert updater.run(batch, 1, 1).metrics["memory/micro_batch_tokens"] == 100
        weights.append([p.detach().clone() for p in policy.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
