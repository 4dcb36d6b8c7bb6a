"""The learning rate that follows the effective sample size of whole responses."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rlkit.batch import PolicyTerms
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.models.policy import Policy
from rlkit.training.lr_ess import EssRate, sequence_log_ratios
from rlkit.training.prepare import TrainBatch, prepare
from rlkit.training.update import Updater
from tests.cli import SMALL, metrics, run, without_times
from tests.steps import move, parts, prepared, rollout, scorer, updater_of
from tests.tiny import make_policy


def two_responses(policy: Policy, *log_ratios: float) -> TrainBatch:
    """A group of two responses whose ratios to the policy that sampled are given."""
    batch = prepared(policy, rollout(policy, 1, n=2, prompts=1), 1, parts("reinforce"))
    behavior = batch.loss.behavior_logp.clone()
    for row, log_ratio in enumerate(log_ratios):
        length = int(batch.loss.mask[row].sum())
        behavior[row, :length] -= log_ratio / length
    advantage = torch.where(batch.loss.mask, torch.tensor([[1.0], [-2.0]]), 0.0)
    return replace(batch, loss=replace(batch.loss, behavior_logp=behavior, advantage=advantage))


def weights_of(policy: Policy) -> Tensor:
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


def change_by(
    lr_ess: float | None, *log_ratios: float, **train: Any
) -> tuple[Tensor, Mapping[str, float], Updater]:
    """How one update changes the weights, what it logs, and who made it."""
    policy = make_policy()
    settings = {"lr_ess": lr_ess, "learning_rate": 1e-2, **train}
    updater = updater_of(policy, parts("reinforce"), **settings)
    before = weights_of(policy)
    found = updater.run(two_responses(policy, *log_ratios), 1, 1)
    return weights_of(policy) - before, found.metrics, updater


@pytest.mark.parametrize(
    ("base", "factor"),
    [(1.0, math.sqrt(0.8)), (0.9, math.sqrt(0.8 / 0.9)), (0.5, 1.0)],
)
@pytest.mark.parametrize(
    "train", [{}, {"optimizer": "muon", "lr_scale": {"embed": 3, r"layers\.1": 0.5}}]
)
def test_an_update_of_two_responses_by_hand(
    base: float, factor: float, train: dict[str, Any]
) -> None:
    """w = (3, 1), so rho = 4^2 / (2 * 10) = 0.8; the first step of each optimizer is as long as
    its rate, whatever group a weight is in."""
    whole, _, plain = change_by(None, math.log(3), 0.0, **train)
    scaled, found, updater = change_by(base, math.log(3), 0.0, **train)
    assert whole.abs().max() > 5e-3
    torch.testing.assert_close(scaled, factor * whole, rtol=2e-3, atol=1e-6)
    assert found["off_policy/sequence_ess"] == pytest.approx(0.8, rel=1e-4)
    assert found["policy/lr_ess_factor"] == pytest.approx(factor, rel=1e-4)
    assert found["policy/lr"] == 1e-2, "the schedule's rate is logged"
    rates = [[g["lr"] for g in u.learner.optimizer.param_groups] for u in (updater, plain)]
    assert rates[0] == rates[1], "and is what a checkpoint holds"


def test_without_it_nothing_is_computed_logged_or_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base that every rho reaches changes no bit either."""
    full, found, _ = change_by(1e-6, math.log(3), 0.0)
    assert found["policy/lr_ess_factor"] == 1.0
    monkeypatch.setattr("rlkit.training.lr_ess.effective_sample_size", None)
    off, logged, _ = change_by(None, math.log(3), 0.0)
    assert torch.equal(off, full)
    assert not {"policy/lr_ess_factor", "off_policy/sequence_ess"} & logged.keys()


def test_the_critic_keeps_its_rate() -> None:
    changes = []
    for lr_ess in (None, 1.0):
        policy, chosen = make_policy(), parts("ppo", advantage="gae")
        groups = rollout(policy, 1)
        move(policy)
        updater = updater_of(policy, chosen, lr_ess=lr_ess, learning_rate=1e-2)
        assert updater.critic is not None
        batch = prepare(groups, 2, chosen, scorer(policy, "own", updater))
        updater.run(batch, 1, 2)
        weights = [p.detach().flatten() for p in updater.critic.critic.parameters()]
        changes.append((weights_of(policy), torch.cat(weights)))
    (whole, critic), (scaled, same) = changes
    assert torch.equal(critic, same) and not torch.equal(whole, scaled)


def test_the_losss_module_takes_the_policys_factor() -> None:
    """The first step of AdamW is as long as its rate."""
    changes = []
    for lr_ess in (None, 1.0):
        policy, chosen = make_policy(), parts("flowrl", anchor="base")
        chosen.anchor.rebase(policy)
        groups = rollout(policy, 1)
        move(policy)
        updater = updater_of(policy, chosen, lr_ess=lr_ess, learning_rate=1e-2)
        assert updater.head.module is not None and updater.head.learner is not None
        bias = list(updater.head.module.parameters())[-1]
        before = bias.detach().clone()
        found = updater.run(prepare(groups, 2, chosen, scorer(policy, "own", updater)), 1, 2)
        changes.append(float(bias.detach() - before))
        assert updater.head.learner.optimizer.param_groups[0]["lr"] == 1e-2
    factor = found.metrics["policy/lr_ess_factor"]
    assert factor < 0.95 and changes[1] == pytest.approx(factor * changes[0], rel=1e-3)


def rho(log_ratios: list[float], *, expert: int | None = None, empty: int | None = None) -> float:
    """Of responses of one token, `expert` a demonstration and `empty` without a valid token."""
    batch = two_responses(make_policy()).loss
    chosen = torch.zeros(len(log_ratios), dtype=torch.int64)
    batch = batch.rows(chosen)
    batch.mask[:] = torch.arange(batch.mask.shape[1]) == 0
    logp = batch.behavior_logp.double() + torch.tensor(log_ratios, dtype=torch.float64)[:, None]
    if expert is not None:
        batch.expert[expert] = True
    if empty is not None:
        batch.mask[empty] = False
    rows = torch.arange(len(log_ratios))
    terms = [(rows, PolicyTerms(logp=logp, entropy=logp))]
    return EssRate(1.0, SINGLE).ess(batch, rows, terms)


def test_extreme_ratios_do_not_overflow() -> None:
    assert rho([1000.0, 0.0]) == pytest.approx(0.5)
    assert rho([-1000.0, -1000.0, -1000.0]) == pytest.approx(1.0)
    assert rho([900.0 + math.log(3), 900.0]) == pytest.approx(0.8)


def test_demonstrations_and_empty_responses_do_not_count() -> None:
    """Their log-ratio is that of unknown log-probs, or of nothing."""
    two = [math.log(3), 0.0]
    assert rho([*two, 5.0], expert=2) == pytest.approx(0.8)
    assert rho([*two, 5.0], empty=2) == pytest.approx(0.8)
    assert rho([*two, 0.0]) == pytest.approx(25 / (3 * 11))
    assert rho([5.0], expert=0) == 1.0


def stale(tokens: int, loss: str, **train: Any) -> tuple[Tensor, Mapping[str, float]]:
    """The weights after updates on responses of older weights, and what is logged."""
    policy, chosen = make_policy(), parts(loss)
    groups = rollout(policy, 1)
    move(policy)
    settings = {"learning_rate": 1e-3, "lr_ess": 0.9, "micro_batch_tokens": tokens, **train}
    updater = updater_of(policy, chosen, **settings)
    batch = prepare(groups, 3, chosen, scorer(policy, "own", updater))
    found = updater.run(batch, 2, 3).metrics
    return weights_of(policy), found


@pytest.mark.parametrize("loss", ["reinforce", "remix", "m2po"])
def test_micro_batches_change_nothing(loss: str) -> None:
    """Over two passes and two minibatches, for losses of both scopes."""
    whole, found = stale(10_000, loss, minibatches=2)
    cut, again = stale(40, loss, minibatches=2)
    assert 0.1 < found["policy/lr_ess_factor"] < 0.95
    for key in ("policy/lr_ess_factor", "off_policy/sequence_ess"):
        assert again[key] == pytest.approx(found[key], rel=1e-3), key
    torch.testing.assert_close(cut, whole, rtol=1e-3, atol=1e-4)


def test_ratios_are_those_of_the_forward_before_the_step() -> None:
    policy, chosen = make_policy(), parts("reinforce")
    groups = rollout(policy, 1)
    move(policy)
    batch = prepared(policy, groups, 3, chosen)
    difference = (policy.logp(batch.tokens) - batch.loss.behavior_logp).double()
    w = torch.where(batch.loss.mask, difference, 0.0).sum(-1).exp()
    expected = float(w.sum() ** 2 / (len(w) * (w**2).sum()))
    found = updater_of(policy, chosen, lr_ess=1.0).run(batch, 1, 3).metrics
    assert expected < 0.9
    assert found["off_policy/sequence_ess"] == pytest.approx(expected, rel=1e-4)
    assert found["policy/lr_ess_factor"] == pytest.approx(math.sqrt(expected), rel=1e-4)


class OneOfTwo(Processes):
    """A rank whose sums have the other's share in them."""

    world_size = 2

    def __init__(self, other: Tensor) -> None:
        self.other = other

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor + self.other


def test_ranks_share_one_effective_sample_size() -> None:
    """One has w = 3, the other w = 1: the mean of their own would be 1, that of both is 0.8."""
    policy = make_policy()
    batch = two_responses(policy, math.log(3), 0.0)
    rows = torch.arange(2)
    logp = policy.logp(batch.tokens).detach()
    shares = [[(rows[i : i + 1], PolicyTerms(logp=logp[i : i + 1], entropy=logp))] for i in (0, 1)]
    for own, other in ((0, 1), (1, 0)):
        rank = OneOfTwo(sequence_log_ratios(batch.loss, shares[other]))
        found = EssRate(1.0, rank).ess(batch.loss, rows, shares[own])
        assert found == pytest.approx(0.8, rel=1e-4)
    nothing = OneOfTwo(sequence_log_ratios(batch.loss, [*shares[0], *shares[1]]))
    assert EssRate(1.0, nothing).ess(batch.loss, rows, []) == pytest.approx(0.8, rel=1e-4)


def test_a_ratio_that_is_not_finite_takes_no_step() -> None:
    """The loss does not read it, and a rate of NaN would be the end of the weights."""
    changed, found, updater = change_by(1.0, math.inf, 0.0)
    assert found["policy/skipped_steps"] == 1 and not changed.any()
    assert "policy/lr_ess_factor" not in found and updater.skipped_in_a_row == 1


@pytest.mark.slow
def test_a_run_continues_exactly(tmp_path: Path) -> None:
    """From the checkpoint of step 2, with old weights in the engine so that ratios differ."""
    sizes = [s for s in SMALL if not s.startswith("train.steps")]
    settings = ("algorithm=grpo", "loss=grpo_behavior", "rollout.sync_every=4", "train.lr_ess=1")
    rate = ("train.learning_rate=1e-3", "train.warmup_steps=3", "train.updates_per_batch=2")
    more = ("train.steps=4", "checkpoint.every=2", "output_dir=run", "resume=auto")
    assert run(*sizes, *settings, *rate, *more, cwd=tmp_path).status == 0
    folder = tmp_path / "run"
    whole, rows = folder / "checkpoint-4", without_times(metrics(folder))
    assert min(row.get("policy/lr_ess_factor", 1.0) for row in rows) < 0.99
    shutil.move(whole, tmp_path / "whole")
    result = run(*sizes, *settings, *rate, *more, cwd=tmp_path)
    assert result.status == 0, result.err
    again, once = (load_file(f / "model.safetensors") for f in (whole, tmp_path / "whole"))
    assert all(torch.equal(again[name], once[name]) for name in once)
    assert without_times(metrics(folder)) == rows
