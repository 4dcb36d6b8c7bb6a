"""The critic inside real updates."""

from __future__ import annotations

from dataclasses import replace

import torch

from rlkit.config.run import RunConfig, TrainConfig
from rlkit.training.prepare import prepare
from rlkit.training.update import Updater
from tests.steps import parts, rollout, scorer
from tests.tiny import make_policy


def test_the_critic_learns_the_returns_and_its_figures_are_logged() -> None:
    policy = make_policy()
    chosen = parts(loss="ppo", advantage="gae")
    train = TrainConfig(prompts_per_step=4, critic_learning_rate=3e-3, learning_rate=1e-9)
    updater = Updater(RunConfig(output_dir="x", train=train), policy, chosen, 6)
    groups = rollout(policy, 1, n=8)
    losses = []
    for step in range(1, 31):
        batch = prepare(groups, step, chosen, scorer(policy, "own", updater, 200))
        metrics = updater.run(batch, 1, step).metrics
        losses.append(metrics["critic/loss"])
    assert losses[-1] < 0.5 * losses[0]
    assert {"critic/clip_fraction", "critic/explained_variance"} <= metrics.keys()
    assert metrics["critic/explained_variance"] > 0.3


def test_a_step_of_the_critic_that_is_not_finite_is_left_out_and_counted() -> None:
    policy = make_policy()
    chosen = parts(loss="ppo", advantage="gae")
    train = TrainConfig(prompts_per_step=4, minibatches=2, critic_learning_rate=3e-3)
    updater = Updater(RunConfig(output_dir="x", train=train), policy, chosen, 6)
    batch = prepare(rollout(policy, 1, n=8), 1, chosen, scorer(policy, "own", updater, 200))
    assert updater.run(batch, 1, 1).metrics["critic/skipped_steps"] == 0
    assert updater.critic is not None
    before = [p.detach().clone() for p in updater.critic.critic.parameters()]
    spoiled = replace(batch, returns=torch.full_like(batch.returns, torch.inf))
    assert updater.run(spoiled, 1, 2).metrics["critic/skipped_steps"] == 2
    after = list(updater.critic.critic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert updater.run(batch, 1, 3).metrics["critic/skipped_steps"] == 0, "of its own step"


def test_a_critic_that_sees_the_age_tells_old_responses_from_new_ones() -> None:
    """The same responses, with other returns where they are old: only the age tells them apart."""
    policy = make_policy()
    chosen = parts(loss="ppo", advantage="gae_age")
    train = TrainConfig(prompts_per_step=4, critic_learning_rate=3e-3, learning_rate=1e-9)
    updater = Updater(RunConfig(output_dir="x", train=train), policy, chosen, 6)
    new = rollout(policy, 5, prompts=2)
    old = [
        replace(
            group,
            samples=[
                replace(
                    s,
                    sample_id=s.sample_id + 1000,
                    reward=-1.0,
                    policy_version=s.policy_version - 4,
                )
                for s in group.samples
            ],
        )
        for group in new
    ]
    new = [replace(g, samples=[replace(s, reward=1.0) for s in g.samples]) for g in new]
    for step in range(1, 61):
        batch = prepare(new + old, 5, chosen, scorer(policy, "own", updater, 200))
        updater.run(batch, 1, step)
    values, mask = batch.values, batch.loss.mask
    is_old = batch.loss.age == 4
    assert is_old.any() and (~is_old).any()
    first, second = values[~is_old][mask[~is_old]].mean(), values[is_old][mask[is_old]].mean()
    assert first > 0.5 > -0.5 > second
