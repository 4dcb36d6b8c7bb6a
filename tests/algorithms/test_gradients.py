"""Every registered loss has the closed-form gradient of its paper: dL/dlogp = -share * g."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.objective import Objective, loss_value
from rlkit.ops import aggregate_weights
from rlkit.registry import build, names
from rlkit.testing.losses import examples, value_and_grad

Weights = Callable[[Tensor, LossBatch, Any], Tensor]


def clipped(ratio: Tensor, a: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """r A, except 0 where A > 0 and r > high and where A < 0 and r < low."""
    return ratio * a * ~((a > 0) & (ratio > high)) * ~((a < 0) & (ratio < low))


def ppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return clipped((logp - b.prox_logp).exp(), b.advantage, 1 - c.clip_low, 1 + c.clip_high)


def remix(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    centre = (b.prox_logp - b.behavior_logp).exp()
    ratio = (logp - b.behavior_logp).exp()
    return clipped(ratio, b.advantage, centre - c.epsilon, centre + c.epsilon)


def bapo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """The search as Algorithm 1 and the authors' code loop, with bounds as whole steps."""
    ratio = (logp - b.behavior_logp).exp()
    r, a = ratio[b.mask], b.advantage[b.mask]
    w = b.behavior_logp[b.mask].exp() if c.prob_weight else torch.ones_like(r)
    i_low = i_high = 0
    n_low = round((c.c_low_max - c.c_low_start) / c.low_step)
    n_high = round((c.c_high_max - c.c_high_start) / c.high_step)
    while True:
        low, high = c.c_low_start + i_low * c.low_step, c.c_high_start + i_high * c.high_step
        p = (w * a * r.clamp(max=high))[a > 0].sum()
        q = (w * -a * r.clamp(min=low))[a < 0].sum()
        balance = p / (p + q) if c.metric == "fraction" else p / q
        if balance >= c.target or (i_low == n_low and i_high == n_high):
            break
        if c.order == "high_first":
            i_high, i_low = (i_high + 1, i_low) if i_high < n_high else (i_high, i_low + 1)
        else:
            i_high, i_low = (i_high, i_low + 1) if i_low < n_low else (i_high + 1, i_low)
    g = clipped(ratio, b.advantage, low, high)
    cap = torch.inf if c.dual_clip is None else c.dual_clip
    return g * ~((b.advantage < 0) & (ratio > cap))


def topr(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """A where A > 0, min(1, product of the response's ratios) A where A < 0."""
    delta = torch.where(b.mask, logp - b.behavior_logp, 0.0)
    product = delta.sum(-1, keepdim=True).exp()
    return torch.where(b.advantage > 0, 1.0, product.clamp(max=1.0)) * b.advantage


CLOSED: dict[str, Weights] = {
    "ppo": ppo,
    "grpo": ppo,
    "dr_grpo": ppo,
    "remix": remix,
    "bapo": bapo,
    "bapo_authors_repo": bapo,
    "topr": topr,
}


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


DENOMINATOR = {
    "ppo": "prox_logp",
    "grpo": "prox_logp",
    "dr_grpo": "prox_logp",
    "remix": "behavior_logp",
    "bapo": "behavior_logp",
    "bapo_authors_repo": "behavior_logp",
    "topr": "behavior_logp",
}


@pytest.mark.parametrize("name", names("loss"))
def test_the_logged_ratio_is_to_the_policy_the_design_names(name: str) -> None:
    """With prox and behavior apart: the mean of exp(logp - denominator)."""
    assert name in DENOMINATOR, f"add the ratio's denominator of loss={name} to the table"
    loss = build("loss", name)
    logp, batch = examples(loss.needs)
    _, metrics = loss_value(loss, logp, batch)
    ratio = (logp - getattr(batch, DENOMINATOR[name])).exp()[batch.mask]
    assert metrics["ratio_mean"] == pytest.approx(float(ratio.mean()), rel=1e-12)
    assert metrics["ratio_max"] == pytest.approx(float(ratio.max()), rel=1e-12)


@pytest.mark.parametrize("name", [n for n in names("loss") if DENOMINATOR.get(n) == "prox_logp"])
def test_ratio_to_moves_the_denominator_and_what_the_loss_needs(name: str) -> None:
    """A ratio to behavior is, on the same batch with prox set to behavior, the ratio to prox."""
    to_prox, to_behavior = build("loss", name), build("loss", name, ratio_to="behavior")
    assert to_prox.needs == {"prox"} and to_behavior.needs == {"behavior"}
    logp, batch = examples(to_prox.needs)
    swapped = LossBatch(
        **{f: getattr(batch, f) for f in LossBatch.__dataclass_fields__ if f != "prox_logp"},
        prox_logp=batch.behavior_logp,
    )
    a, b = value_and_grad(to_behavior, logp, batch), value_and_grad(to_prox, logp, swapped)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[1], value_and_grad(to_prox, logp, batch)[1])
