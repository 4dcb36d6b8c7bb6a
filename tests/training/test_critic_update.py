"""The critic inside real updates."""

from __future__ import annotations

from dataclasses import replace

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
