"""The mix-policy surrogate: PPO's on fresh data, and a window that moves with the data's age."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.remix import Remix, RemixConfig, mix_window
from rlkit.batch import LossBatch, PolicyTerms
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.one_group import BEHAVIOR, PROX


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.1, 0.2, 0.3])
def test_on_fresh_data_the_gradient_is_ppos_bit_for_bit(epsilon: float, dtype: torch.dtype) -> None:
    """Fresh: the policy that sampled the batch is the one the step starts from."""
    logp, batch = examples(frozenset())
    batch = replace(
        batch,
        prox_logp=batch.behavior_logp.to(dtype),
        behavior_logp=batch.behavior_logp.to(dtype),
        advantage=batch.advantage.to(dtype),
    )
    ppo = build("loss", "ppo", clip_low=epsilon, clip_high=epsilon)
    remix = build("loss", "remix", epsilon=epsilon)
    found, expected = (value_and_grad(loss, logp.to(dtype), batch)[1] for loss in (remix, ppo))
    assert torch.equal(found, expected)
    assert (found == 0).sum() > (~batch.mask).sum(), "the batch exercises the clip"


def test_at_the_start_of_a_step_nothing_is_clipped_however_old_the_data() -> None:
    """There the ratio is the window's centre, and each token's gradient -r A."""
    _, batch = examples(frozenset())
    stale = replace(batch, behavior_logp=batch.prox_logp - 2 * (batch.prox_logp.sin() + 0.3))
    remix = build("loss", "remix", aggregation="token-sum")
    value, gradient = value_and_grad(remix, stale.prox_logp, stale)
    centre = (stale.prox_logp - stale.behavior_logp).exp()
    expected = -torch.where(stale.mask, centre * stale.advantage, 0.0)
    assert torch.allclose(gradient, expected, rtol=1e-12, atol=0)
    assert loss_value(remix, stale.prox_logp, stale)[1]["clip_fraction"] == 0
    assert float(value) == pytest.approx(float(expected.sum()))


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        ({"epsilon": 0.5}, (1.5, 2.5)),
        ({"epsilon": 0.5, "clip_low": 0.1}, (1.9, 2.5)),
        ({"epsilon": 0.5, "clip_high": 0.1}, (1.5, 2.1)),
        ({"clip_low": 3.0}, (-1.0, 2.2)),
        ({"clip_low": 3.0, "lower_clamp_zero": True}, (0.0, 2.2)),
    ],
)
def test_the_window_is_additive_around_prox_over_behavior(
    fields: dict[str, float], window: tuple[float, float]
) -> None:
    """With prox = 2 behavior: positive tokens stop above the upper bound, negative ones below the
    lower.
    """
    low, high = window
    ratios = torch.tensor([[low - 0.01, low + 0.01, high - 0.01, high + 0.01]]).double()
    ratios = ratios.clamp(min=1e-3)
    flags = {}
    for advantage in (1.0, -1.0):
        batch = one_row(advantage, ratios.shape[1])
        out = Remix(RemixConfig(**fields))(
            PolicyTerms(logp=ratios.log(), entropy=torch.zeros_like(ratios)), batch
        )
        flags[advantage] = out.metrics["clip_fraction"][0].tolist()
    assert flags[1.0] == [0, 0, 0, 1]
    assert flags[-1.0] == [float(low > 0), 0, 0, 0]


def test_a_negative_lower_bound_is_raised_to_zero_only_on_request() -> None:
    centre = torch.tensor([0.1, 2.0])
    kept, _ = mix_window(centre, 0.5, 0.5, lower_clamp_zero=False)
    raised, _ = mix_window(centre, 0.5, 0.5, lower_clamp_zero=True)
    assert kept.tolist() == pytest.approx([-0.4, 1.5])
    assert raised.tolist() == pytest.approx([0, 1.5])


def one_row(advantage: float, length: int) -> LossBatch:
    """One response whose tokens the start of the step makes twice as likely as its sampler did."""
    _, batch = examples(frozenset())
    batch = batch.rows(torch.tensor([0]))
    shape = (1, length)
    return replace(
        batch,
        mask=torch.ones(shape, dtype=torch.bool),
        advantage=torch.full(shape, advantage).double(),
        behavior_logp=torch.zeros(shape).double(),
        prox_logp=torch.full(shape, 2.0).double().log(),
    )


@given(
    centre=st.floats(0.05, 20),
    share=st.floats(0.01, 5),
    epsilon=st.floats(0.01, 0.9),
    sign=st.booleans(),
)
def test_the_window_in_the_ratio_to_the_steps_start(
    centre: float, share: float, epsilon: float, sign: bool
) -> None:
    """clip(r, c - e, c + e) = c clip(r / c, 1 - e / c, 1 + e / c): wider for c < 1, narrower for c
    > 1.
    """
    c = torch.tensor(centre, dtype=torch.float64)
    low, high = mix_window(c, epsilon, epsilon, lower_clamp_zero=sign)
    direct = (c * share).clamp(low, high)
    start = max(1 - epsilon / centre, 0 if sign else -float("inf"))
    rescaled = c * min(max(share, start), 1 + epsilon / centre)
    assert float(direct) == pytest.approx(float(rescaled), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "fields", "clip"),
    [
        ("remix", {"epsilon": 0.15}, 0.15),
        ("toppo", {"epsilon": 0.15}, 0.15),
        ("offpolicy_grpo", {"epsilon": 0.15, "aggregation": "token-mean"}, 0.15),
    ],
)
def test_on_fresh_data_the_losses_with_two_ratios_are_ppo(
    name: str, fields: dict[str, Any], clip: float
) -> None:
    """geppo's window is 2 / (M + 1) as wide: it expects M policies, 3 by default, in the batch."""
    logp, batch = examples(BEHAVIOR | PROX)
    fresh = replace(batch, prox_logp=batch.behavior_logp, age=batch.age * 0)
    ppo = build("loss", "ppo", clip_low=clip, clip_high=clip)
    found = value_and_grad(build("loss", name, **fields), logp, fresh)
    assert close(found, value_and_grad(ppo, logp, fresh))


def test_offpolicy_grpo_is_grpo_on_the_stored_log_probs() -> None:
    """With the centre at 1 the step's start is not read; with the centre of Eq. 6 it is."""
    logp, batch = examples(BEHAVIOR | PROX)
    one, moving = build("loss", "offpolicy_grpo"), build("loss", "offpolicy_grpo", centre="prox")
    assert one.needs == {"behavior"} and moving.needs == {"behavior", "prox"}
    grpo = value_and_grad(build("loss", "grpo", ratio_to="behavior"), logp, batch)
    assert close(value_and_grad(one, logp, batch), grpo)
    assert not close(value_and_grad(moving, logp, batch), grpo)
    assert one.config.lower_clamp_zero and build("loss", "toppo").config.lower_clamp_zero


def test_toppo_is_the_mix_policy_surrogate() -> None:
    """Raising a negative lower bound to 0 changes nothing, since no ratio is below 0."""
    logp, batch = examples(BEHAVIOR | PROX)
    for epsilon in (0.1, 1.5):
        found, expected = (
            value_and_grad(build("loss", name, epsilon=epsilon), logp, batch)
            for name in ("toppo", "remix")
        )
        assert close(found, expected)
