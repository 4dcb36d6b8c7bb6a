"""Every registered loss has the closed-form gradient of its paper: dL/dlogp = -share * g."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlkit.batch import LossBatch
from rlkit.objective import Objective, loss_value
from rlkit.ops import aggregate_weights
from rlkit.registry import build, entry, names
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.closed import CLOSED, DENOMINATOR


@pytest.mark.parametrize("name", names("loss"))
@pytest.mark.parametrize("spread", [0.1, 0.5, 1.5])
def test_the_gradient_is_the_closed_form(name: str, spread: float) -> None:
    assert name in CLOSED, f"add the closed-form gradient weight of loss={name} to the table"
    loss = build("loss", name)
    _, batch = examples(loss.needs, seed=3)
    noise = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(1)).double()
    logp = batch.behavior_logp + spread * noise
    _, found = value_and_grad(loss, logp, batch)
    shares = aggregate_weights(
        batch.mask,
        loss.config.aggregation,
        tokens=batch.mask.sum().double(),
        rows=torch.tensor(8.0).double(),
        norm_length=Objective(loss).max_completion_length,
    )
    expected = -shares * CLOSED[name](logp, batch, loss.config)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


PUSHES_WITHOUT_ADVANTAGE = {
    "opmd": "Kimi's squared log-ratio stays",
    "opmd_kimi_token": "its squared log-ratio stays",
    "opmd_pairwise": "log-ratios of a group are made equal",
    "oapl": "the log-ratio is regressed on 0",
    "gvpo": "log-ratios of a group are made equal",
    "agro": "log-ratios of a group are made equal",
    "dro": "its squared log-ratio stays",
    "p3o": "the KL to the policy that sampled stays",
    "rep_asymre": "its forward-KL regularizer stays",
    "rep_opmd": "its squared log-ratio stays",
    "kl_cov": "the penalty on the chosen tokens stays",
    "dppo_ipo": "prime-rl's squared log-ratio stays",
    "tba": "log-ratios of a group are made equal",
    "flowrl": "log Z and the log-ratio to the base are made to balance",
    "qrpo": "it reads the reward's quantile, not the advantage",
    "sft": "it imitates every response, whatever its reward",
}
"""Losses whose papers give them a gradient where every advantage is zero, and why."""


@pytest.mark.parametrize("name", names("loss"))
def test_without_an_advantage_nothing_is_pushed(name: str) -> None:
    """Equal rewards and zero advantages: no gradient, except where the paper's loss has one."""
    loss = build("loss", name)
    logp, batch = examples(loss.needs)
    flat = replace(batch, advantage=torch.zeros_like(logp), reward=torch.ones_like(batch.reward))
    _, gradient = value_and_grad(loss, logp, flat)
    assert bool((gradient == 0).all()) == (name not in PUSHES_WITHOUT_ADVANTAGE)


def references_of(batch: LossBatch) -> dict[str, torch.Tensor]:
    own = {"prox_logp": batch.prox_logp, "behavior_logp": batch.behavior_logp}
    return {**own, **batch.anchor_logp}


@pytest.mark.parametrize("name", names("loss"))
def test_the_logged_ratio_is_to_the_policy_the_design_names(name: str) -> None:
    """With prox and behavior apart: the mean of exp(logp - denominator)."""
    assert name in DENOMINATOR, f"add the ratio's denominator of loss={name} to the table"
    loss = build("loss", name)
    logp, batch = examples(loss.needs)
    _, metrics = loss_value(loss, logp, batch)
    if "ratio_mean" not in metrics:
        assert DENOMINATOR[name] == "behavior_logp", "the framework logs pi / behavior for it"
        return
    reference = DENOMINATOR[name].removeprefix("anchor:")
    other = references_of(batch)[reference]
    ratio = (logp - other).exp()[batch.mask]
    assert metrics["ratio_mean"] == pytest.approx(float(ratio.mean()), rel=1e-12)
    assert metrics["ratio_max"] == pytest.approx(float(ratio.max()), rel=1e-12)


READS_BEHAVIOR_TOO = {"exgrpo": "the weight of replayed tokens is pi / behavior, whatever ratio_to"}
WITH_RATIO_TO = [n for n in names("loss") if "ratio_to" in entry("loss", n).config.model_fields]


@pytest.mark.parametrize("name", WITH_RATIO_TO)
def test_ratio_to_moves_the_denominator_and_what_the_loss_needs(name: str) -> None:
    """A ratio to behavior is, on the same batch with prox set to behavior, the ratio to prox."""
    to_prox, to_behavior = (build("loss", name, ratio_to=x) for x in ("prox", "behavior"))
    also = {"behavior"} if name in READS_BEHAVIOR_TOO else set()
    others = {"entropy", "anchor:base", "prompt_hidden"}
    assert to_prox.needs - others == {"prox"} | also
    assert to_behavior.needs - others == {"behavior"}
    logp, batch = examples(to_prox.needs)
    swapped = LossBatch(
        **{f: getattr(batch, f) for f in LossBatch.__dataclass_fields__ if f != "prox_logp"},
        prox_logp=batch.behavior_logp,
    )
    a, b = value_and_grad(to_behavior, logp, batch), value_and_grad(to_prox, logp, swapped)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[1], value_and_grad(to_prox, logp, batch)[1])
