"""The critic inside real updates."""

from __future__ import annotations

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
