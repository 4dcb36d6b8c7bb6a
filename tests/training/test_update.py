"""Minibatches, and the critic inside real updates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import rlkit
from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.config.run import RunConfig, TrainConfig
from rlkit.errors import UserError
from rlkit.interfaces import LossConfig, PolicyLoss, Tokens
from rlkit.training.prepare import prepare
from rlkit.training.references import BehaviorLogp
from rlkit.training.update import Updater
from tests.steps import move, parts, prepared, rollout, scorer, updater_of
from tests.tiny import make_policy


@pytest.mark.parametrize(("groups", "sizes"), [(4, [2, 2]), (3, [2, 1]), (1, [1])])
def test_a_short_batch_is_cut_into_minibatches_of_whole_groups(
    groups: int, sizes: list[int]
) -> None:
    policy = make_policy()
    batch = prepared(policy, rollout(policy, 1, prompts=groups), 1, parts())
    config = RunConfig(output_dir="x", train=TrainConfig(prompts_per_step=4, minibatches=2))
    updater = Updater(config, policy, parts(), 6)

    def minibatches(passes: int) -> Iterator[tuple[int, torch.Tensor]]:
        return updater._minibatches(batch.loss.group, batch.groups, 1, passes)

    cut = [rows for _, rows in minibatches(1)]
    assert [len(batch.loss.group[rows].unique()) for rows in cut] == sizes
    assert sorted(torch.cat(cut).tolist()) == list(range(4 * groups))
    again = [(number, rows.tolist()) for number, rows in minibatches(2)]
    assert again[: len(cut)] == [(0, rows.tolist()) for rows in cut]
    assert [number for number, _ in again] == [0] * len(cut) + [1] * len(cut)


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
    before = [p.detach().clone() for p in (*policy.model.parameters(), *critic.critic.parameters())]
    batch = prepare(rollout(policy, 1), 1, chosen, scorer(policy, "own", updater))
    updater.run(batch, 1, 1)
    after = [*policy.model.parameters(), *critic.critic.parameters()]
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


@pytest.mark.slow
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
        batch = prepare(rollout(policy, 1), 1, chosen, scorer(policy, "own", updater))
        real = policy.model.forward

        def forward(*args: Any, most: int = most, real: Any = real, **inputs: Any) -> Any:
            if inputs["input_ids"].numel() > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(*args, **inputs)

        monkeypatch.setattr(policy.model, "forward", forward)
        assert updater.run(batch, 1, 1).metrics["memory/micro_batch_tokens"] == 100
        weights.append([p.detach().clone() for p in policy.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_an_anchor_in_the_place_of_prox_stays_there_whatever_samples() -> None:
    """An engine that is not the trainer is compared with what the first forward finds, and that is
    not the prox_logp of PPO-EWMA, which is a policy that lags behind."""
    weights, ways = [], list[BehaviorLogp](["own", "foreign"])
    for behavior in ways:
        policy, chosen = make_policy(), parts("decoupled_ppo", "ppo_ewma")
        chosen.anchor.rebase(policy)
        move(policy)
        updater = updater_of(policy, chosen, learning_rate=1e-2)
        batch = prepare(rollout(policy, 2), 2, chosen, scorer(policy, behavior, updater, late=True))
        assert bool(batch.own.late.any()) == (behavior == "foreign")
        updater.run(batch, 1, 2)
        weights.append([p.detach().clone() for p in policy.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


# ---- log-probs under pi_k that the first forward finds


class InTrustRegion(PolicyLoss[LossConfig]):
    """A loss whose mask depends on how far pi_k is from the policy that sampled."""

    Config = LossConfig
    needs = frozenset({"behavior", "prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        near = (batch.prox_logp - batch.behavior_logp).abs() < 0.02
        value = -batch.advantage * (policy.logp - batch.prox_logp).exp()
        return LossOutput(terms=[Term(name="policy", value=value, mask=batch.mask & near)])


def gradient_of(
    loss: PolicyLoss[Any], *, late: bool, tokens: int = 60, **train: Any
) -> tuple[torch.Tensor, dict[str, float], int]:
    """The weights' change by updates on a batch of which half is replayed, metrics, and how many
    rows were scored before them."""
    policy = make_policy()
    old = rollout(policy, step=1)
    move(policy)
    groups = rollout(policy, step=3)[:2] + old[:2]
    chosen = replace(parts(), loss=loss)
    updater = updater_of(policy, chosen, micro_batch_tokens=tokens, max_grad_norm=1e9, **train)
    scored, real = list[int](), policy.logp

    def counted(tokens: Tokens) -> torch.Tensor:
        scored.append(len(tokens.prompt))
        return real(tokens)

    policy.logp = counted  # type: ignore[method-assign]
    batch = prepare(groups, 3, chosen, scorer(policy, "own", updater, tokens, late=late))
    before = torch.cat([p.detach().flatten() for p in policy.model.parameters()])
    metrics = updater.run(batch, train.get("updates_per_batch", 1), 3).metrics
    after = torch.cat([p.detach().flatten() for p in policy.model.parameters()])
    return after - before, dict(metrics), sum(scored)


@pytest.mark.parametrize("name", ["ppo", "remix", "gspo", "bapo", "cispo", "m2po"])
@pytest.mark.parametrize("tokens", [60, 10_000])
def test_what_the_first_forward_finds_changes_nothing_and_saves_a_forward(
    name: str, tokens: int
) -> None:
    """Two passes: the second's ratios are to pi_k of the first."""
    loss = rlkit.build("loss", name)
    how: dict[str, Any] = {"learning_rate": 1e-4, "updates_per_batch": 2, "tokens": tokens}
    expected, metrics, rows = gradient_of(loss, late=False, **how)
    found, again, late = gradient_of(loss, late=True, **how)
    assert (rows, late) == ((8, 0) if "prox" in loss.needs else (0, 0))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-8)
    assert again == pytest.approx(metrics, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("tokens", [60, 10_000])
def test_a_mask_that_depends_on_what_is_found_counts_its_tokens(tokens: int) -> None:
    """The mean is over the tokens that the mask keeps, which are known after the forward."""
    loss = InTrustRegion(LossConfig())
    expected, metrics, _ = gradient_of(loss, late=False, tokens=tokens, learning_rate=1e-4)
    found, again, _ = gradient_of(loss, late=True, tokens=tokens, learning_rate=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-8)
    assert again["policy/loss"] == pytest.approx(metrics["policy/loss"], rel=1e-4)


@pytest.mark.parametrize("name", ["geo_mask", "trm"])
def test_what_a_correction_masks_by_is_not_left_to_the_first_forward(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask that turns out smaller than was assumed would throw that forward away."""
    policy = make_policy()
    old = rollout(policy, step=1)
    move(policy)
    groups = rollout(policy, step=3)[:2] + old[:2]
    chosen = replace(parts("ppo"), corrections=[(name, rlkit.build("correction", name))])
    updater = updater_of(policy, chosen, micro_batch_tokens=60)
    batch = prepare(groups, 3, chosen, scorer(policy, "own", updater, late=True))
    forwards, real = list[int](), policy.model.forward

    def counted(*args: Any, **inputs: Any) -> Any:
        forwards.append(inputs["input_ids"].numel())
        return real(*args, **inputs)

    monkeypatch.setattr(policy.model, "forward", counted)
    dropped = updater.run(batch, 1, 3).metrics[f"correction/{name}_dropped"]
    assert len(forwards) == len(updater.micro.split(batch.tokens, 60)) > 1 and dropped > 0


def test_only_the_rows_of_the_first_minibatch_are_left_to_it() -> None:
    """Weights have moved when the second comes."""
    loss = rlkit.build("loss", "ppo")
    expected, _, rows = gradient_of(loss, late=False, minibatches=2, learning_rate=1e-3)
    found, _, late = gradient_of(loss, late=True, minibatches=2, learning_rate=1e-3)
    assert rows == 8 and 0 <= late < 8
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
