"""The module that a loss trains beside the policy, in real updates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import rlkit
from rlkit.config.run import TrainConfig
from rlkit.distributed.processes import Processes
from rlkit.errors import UserError
from rlkit.interfaces import PolicyLoss
from rlkit.models.policy import Policy
from rlkit.training.loss_head import Beside, LossHead
from rlkit.training.prepare import prepare
from rlkit.training.update import Updater
from tests.ranks import on_ranks
from tests.steps import parts, rollout, scorer, updater_of
from tests.tiny import make_policy


class Needy(PolicyLoss):
    """Says that it reads prompts, and has no module."""

    needs = frozenset({"prompt_hidden"})

    def __call__(self, policy: Any, batch: Any) -> Any:
        raise AssertionError


def flowrl(policy: Policy, **train: Any) -> tuple[Updater, Any]:
    chosen = parts(loss="flowrl", anchor="base")
    chosen.anchor.rebase(policy)
    return updater_of(policy, chosen, **train), chosen


def head_of(policy: Policy, seed: int = 0) -> LossHead:
    return LossHead(rlkit.build("loss", "flowrl"), policy, TrainConfig(), seed)


def weights(head: LossHead) -> torch.Tensor:
    assert head.module is not None
    return torch.cat([w.detach().flatten() for w in head.module.parameters()])


def test_log_z_learns_what_it_alone_can() -> None:
    """The policy stands still: log Z comes near the mean of beta A - mean log(pi / ref), 0."""
    policy = make_policy()
    updater, chosen = flowrl(policy, lr_scale={"^loss": 1e6}, learning_rate=1e-9)
    assert updater.head.module is not None
    with torch.no_grad():
        list(updater.head.module.parameters())[-1].fill_(5.0)
    groups, found = rollout(policy, 1, n=4), []
    for step in range(1, 41):
        batch = prepare(groups, step, chosen, scorer(policy, "own", updater, 200))
        metrics = updater.run(batch, 1, step).metrics
        found.append(metrics["policy/log_z"])
    assert found[0] > 4 and abs(found[-1]) < 2
    assert metrics["loss/lr"] == 1e-9 and metrics["loss/lr_^loss"] == pytest.approx(1e-3)
    assert metrics["loss/grad_norm"] > 0


def test_its_first_weights_come_from_the_seed_and_draw_nothing_of_the_user() -> None:
    policy = make_policy()
    before = torch.get_rng_state()
    first, again, other = head_of(policy), head_of(policy), head_of(policy, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_what_it_has_learned_is_saved_and_goes_on() -> None:
    """The same next update from a saved head as from the one that went on; with moments."""
    found = []
    for load in (False, True):
        policy = make_policy()
        updater, chosen = flowrl(policy, learning_rate=1e-3)
        groups = rollout(policy, 1)
        batch = prepare(groups, 1, chosen, scorer(policy, "own", updater, 200))
        updater.run(batch, 1, 1)
        if load:
            fresh, _ = flowrl(policy, learning_rate=1e-3)
            fresh.load_state_dict(updater.state_dict())
            updater = fresh
        updater.run(batch, 1, 2)
        found.append(weights(updater.head))
    assert torch.equal(*found)


def test_a_reset_keeps_the_weights_and_forgets_the_moments() -> None:
    policy = make_policy()
    updater, chosen = flowrl(policy, learning_rate=1e-3)
    batch = prepare(rollout(policy, 1), 1, chosen, scorer(policy, "own", updater, 200))
    updater.run(batch, 1, 1)
    before = weights(updater.head)
    assert updater.state_dict()["loss_optimizer"]["state"]
    updater.reset()
    assert torch.equal(weights(updater.head), before)
    assert not updater.state_dict()["loss_optimizer"]["state"]


@pytest.mark.parametrize("optimizer", ["muon", "adafactor"])
def test_its_module_learns_with_every_optimizer(optimizer: str) -> None:
    policy = make_policy()
    updater, chosen = flowrl(policy, optimizer=optimizer, learning_rate=1e-3, weight_decay=0.1)
    batch = prepare(rollout(policy, 1), 1, chosen, scorer(policy, "own", updater, 200))
    assert updater.head.module is not None
    before = {name: w.detach().clone() for name, w in updater.head.module.named_parameters()}
    assert updater.run(batch, 1, 1).metrics["policy/skipped_steps"] == 0
    for name, weight in updater.head.module.named_parameters():
        assert weight.isfinite().all() and not torch.equal(weight, before[name]), name


@pytest.mark.parametrize(
    ("saved", "said"),
    [("ppo", "does not have the weights"), ("flowrl", "has other weights than")],
)
def test_a_checkpoint_of_another_module_is_refused(saved: str, said: str) -> None:
    policy = make_policy()
    loss = rlkit.build("loss", saved, **({"layers": 1} if saved == "flowrl" else {}))
    state = LossHead(loss, policy, TrainConfig(), 0).state_dict()
    with pytest.raises(UserError, match=f"this checkpoint {said} .* own module: go on with"):
        head_of(policy).load_state_dict(state)


def test_a_loss_without_a_module_saves_and_steps_nothing() -> None:
    policy = make_policy()
    head = LossHead(rlkit.build("loss", "ppo"), policy, TrainConfig(), 0)
    learner = updater_of(policy, parts(loss="ppo")).learner
    assert head.beside(learner) is learner and head.state_dict() == {}
    assert head.clip(1.0, 1) == 0 and head.set_rate(1.0) == {} and head.metrics() == {}


def test_a_need_without_a_module_is_refused() -> None:
    with pytest.raises(UserError, match="gives no module"):
        LossHead(Needy(), make_policy(), TrainConfig(), 0)


@pytest.mark.parametrize("scale", [1, 2])
def test_the_gradient_is_summed_over_the_ranks_whatever_backward_multiplies_by(scale: int) -> None:
    """The second rank has no row of its own: its gradient counts as zero."""

    def rank(processes: Processes) -> tuple[float, list[torch.Tensor]]:
        head = head_of(make_policy(processes=processes))
        assert head.module is not None
        if processes.rank == 0:
            for weight in head.module.parameters():
                weight.grad = torch.full_like(weight, float(scale))
        norm = head.clip(1e9, scale)
        return norm, [w.grad for w in head.module.parameters() if w.grad is not None]

    (norm, first), (_, second) = on_ranks(rank)
    assert norm == pytest.approx(sum(g.numel() for g in first) ** 0.5)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, torch.ones_like(a)) and torch.equal(a, b)


def test_a_gradient_that_is_not_finite_skips_the_step() -> None:
    policy = make_policy()
    updater, chosen = flowrl(policy, learning_rate=1e-3)
    batch = prepare(rollout(policy, 1), 1, chosen, scorer(policy, "own", updater, 200))
    assert updater.head.module is not None
    bias = list(updater.head.module.parameters())[-1]
    bias.register_hook(lambda gradient: gradient * torch.inf)
    before = weights(updater.head)
    done = updater.run(batch, 1, 1)
    assert done.metrics["policy/skipped_steps"] == 1 and torch.equal(weights(updater.head), before)
    assert all(w.grad is None for w in updater.head.module.parameters())


def test_both_gradients_are_cleared_together() -> None:
    policy = make_policy()
    updater, _ = flowrl(policy)
    backprop = updater.head.beside(updater.learner)
    assert isinstance(backprop, Beside) and backprop.scale == 1
    assert updater.head.learner is not None
    modules: list[nn.Module] = [policy.model, updater.head.learner.module]
    for module in modules:
        next(module.parameters()).grad = torch.ones_like(next(module.parameters()))
    backprop.zero_grad()
    assert all(next(module.parameters()).grad is None for module in modules)
