"""LUFFY and ExGRPO by hand: shaped weights of demonstrations and of replayed tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from algorithms.luffy import shaped
from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.rows import double, near, outcome, rows, stored_rows


@pytest.mark.parametrize(
    ("fields", "own", "theirs"),
    [
        ({}, 0, 0.1 * 0.5 / 0.36),
        ({"shaping_gamma": 0.5}, 0, 0.25),
        ({"shaping_gamma": None}, 0, 0.5),
        ({"on_policy_clip": False}, 1.5, 0.1 * 0.5 / 0.36),
        ({"clip_low": 0.6}, 1.5, 0.1 * 0.5 / 0.36),
        ({"clip_upper_bound": 1.6}, 1.5, 0.1 * 0.5 / 0.36),
        ({"ratio_to": "behavior"}, 1, 0.1 * 0.5 / 0.36),
    ],
)
def test_luffys_weight_of_a_demonstration_and_of_an_own_token(
    fields: dict[str, Any], own: float, theirs: float
) -> None:
    """Own ratio 1.5 above the clip at 1.2 (to behavior it is 1), a demonstration at p = 1/2.

    The weight on grad log p is gamma p / (p + gamma)^2.
    """
    logp, batch = rows(double([[1.5], [1.5]]).log(), [[1.0], [2.0]])
    logp[1] = math.log(0.5)
    behavior = torch.stack([logp[0], torch.full((1,), torch.nan).double()])
    batch = replace(batch, behavior_logp=behavior, expert=torch.tensor([False, True]))
    gradient, metrics = outcome("luffy", logp, batch, **fields)
    assert gradient == near([[-own / 2], [-2 * theirs / 2]])
    assert metrics["clip_fraction"] == (0.5 if own == 0 else 0)


@pytest.mark.parametrize(("clip_low", "weight"), [(0.2, 0), (0.6, 0.5)])
def test_luffys_lower_clip(clip_low: float, weight: float) -> None:
    logp, batch = rows(double([[0.5]]).log(), -1.0)
    assert outcome("luffy", logp, batch, clip_low=clip_low)[0] == near([[weight]])


def test_shaping_saturates_without_overflow() -> None:
    found = shaped(torch.tensor([-200.0, math.log(0.1), 0.0, 200.0]), 0.1)
    assert found.tolist() == pytest.approx([0, 0.5, 1 / 1.1, 1])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("luffy", {"shaping_gamma": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)


@pytest.mark.parametrize(
    "name",
    [
        "exgrpo",
    ],
)
def test_what_is_replayed_is_no_matter_of_age_and_no_demonstration_is_taken(name: str) -> None:
    """Fresh responses of weights that lag by any number of steps are as fresh as others."""
    loss = build("loss", name)
    assert not loss.accepts_expert and loss.scope == "token"
    logp, batch = examples(loss.needs)
    found = [
        value_and_grad(loss, logp, replace(batch, age=torch.tensor([age, 0] * 4)))[0].item()
        for age in (0, 1, 9)
    ]
    assert found[0] == found[1] == found[2]
    fresh = replace(batch, replayed=torch.zeros_like(batch.replayed))
    assert value_and_grad(loss, logp, fresh)[0].item() != found[0]


@pytest.mark.parametrize(
    ("w", "fields", "weight"),
    [
        (1.0, {}, 0.1 / 1.1**2),
        (0.1, {}, 0.25),
        (0.05, {}, 0.1 * 0.05 / 0.15**2),
        (5.0, {}, 0.1 * 5 / 5.1**2),
        (0.5, {"shaping_beta": 0.5}, 0.25),
        (1.0, {"shaping_beta": 1.0}, 0.25),
    ],
)
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_the_weight_of_a_replayed_token(
    w: float, fields: dict[str, float], weight: float, advantage: float
) -> None:
    """beta w / (w + beta)^2 on grad log pi, never clipped: 0.0826 at w = 1; the value is w / (w +
    beta)."""
    logp, batch = stored_rows([[w]], [[advantage]], [1])
    value, gradient = value_and_grad(build("loss", "exgrpo", **fields), logp, batch)
    beta = fields.get("shaping_beta", 0.1)
    assert value.item() == pytest.approx(-advantage * w / (w + beta))
    assert gradient.item() == pytest.approx(-advantage * weight)


def test_the_weight_is_at_most_a_quarter_where_w_is_beta() -> None:
    """Over ratios 1e-4 to 1e4, with beta = 0.1 among them."""
    w = 10 ** torch.linspace(-4, 4, 81, dtype=torch.float64)
    logp, batch = stored_rows(w[:, None], 1.0, [1] * 81)
    loss = build("loss", "exgrpo", aggregation="token-sum")
    weight = -value_and_grad(loss, logp, batch)[1][:, 0]
    assert float(w[weight.argmax()]) == pytest.approx(0.1)
    assert float(weight.max()) == pytest.approx(0.25)


@pytest.mark.parametrize("fields", [{}, {"dual_clip": 2.0}, {"delta": 1.5}, {"clip_low": 0.9}])
def test_exgrpos_new_rows_are_ppos_beside_replayed_ones(fields: dict[str, float]) -> None:
    """All tokens are averaged together: alone or not, a new row's gradient is the one PPO gives."""
    loss = build("loss", "exgrpo", **fields)
    logp, batch = stored_rows(
        [[1.1, 1.5], [0.5, 3.0], [1.5, 0.5]], [[1.0], [-1.0], [1.0]], [0, 0, 1]
    )
    expected = value_and_grad(build("loss", "ppo", **fields), logp, batch)[1]
    found = value_and_grad(loss, logp, batch)[1]
    assert torch.equal(found[:2], expected[:2]) and not torch.equal(found[2], expected[2])
    fresh = replace(batch, replayed=torch.zeros_like(batch.replayed))
    a, b = (value_and_grad(x, logp, fresh) for x in (loss, build("loss", "ppo", **fields)))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


@pytest.mark.parametrize("fields", [{}, {"dual_clip": 2.0, "delta": 1.5}])
def test_without_the_clip_new_tokens_have_the_plain_ratio(fields: dict[str, float]) -> None:
    """r A at any r, no bound of the surrogate left, and none counted."""
    logp, batch = stored_rows([[0.1, 5.0], [0.1, 5.0]], [[1.0], [-1.0]], [0, 0])
    loss = build("loss", "exgrpo", on_policy_clip=False, **fields)
    value, gradient = value_and_grad(loss, logp, batch)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert gradient.tolist() == near([[-0.1 / 4, -5 / 4], [0.1 / 4, 5 / 4]])
    assert loss_value(loss, logp, batch)[1]["clip_fraction"] == 0
    clipped = loss_value(build("loss", "exgrpo"), logp, batch)[1]
    assert clipped["clip_fraction"] == pytest.approx(2 / 4)


def test_exgrpo_divides_by_behavior_where_it_replays_and_by_prox_elsewhere() -> None:
    """To prox the ratios are 1.1, to behavior 0.1; replayed tokens never count as clipped."""
    logp, batch = stored_rows([[1.1], [1.1]], 1.0, [0, 1])
    batch = replace(batch, behavior_logp=logp - math.log(0.1))
    loss = build("loss", "exgrpo", clip_high=0.05)
    assert loss.needs == {"prox", "behavior"}
    assert value_and_grad(loss, logp, batch)[1].tolist() == near([[0], [-0.25 / 2]])
    assert loss_value(loss, logp, batch)[1]["clip_fraction"] == pytest.approx(1 / 2)
    to_behavior = build("loss", "exgrpo", ratio_to="behavior")
    assert value_and_grad(to_behavior, logp, batch)[1].tolist() == near([[-0.1 / 2], [-0.25 / 2]])


@pytest.mark.parametrize("clamp", [20.0, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_replayed_log_ratios_of_ten_thousand_do_not_overflow(
    clamp: float | None, dtype: torch.dtype
) -> None:
    """The weight ends at 0 and at 1, without gradient, also where no clamp bounds the ratio."""
    logp, batch = stored_rows([[1.0, 1.0], [1.0, 1.0]], 1.0, [1, 0])
    behavior = batch.behavior_logp.to(dtype)
    behavior[0] = torch.tensor([1e4, -1e4])
    batch = replace(
        batch,
        advantage=batch.advantage.to(dtype),
        behavior_logp=behavior,
        prox_logp=torch.where(batch.replayed[:, None], behavior, batch.prox_logp.to(dtype)),
    )
    loss = build("loss", "exgrpo", log_ratio_clamp=clamp)
    value, gradient = value_and_grad(loss, logp.to(dtype), batch)
    assert value.item() == pytest.approx(-(0 + 1 + 1 + 1) / 4)
    assert gradient.tolist() == near([[0, 0], [-0.25, -0.25]])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("exgrpo", {"shaping_beta": 0.0}),
    ],
)
def test_settings_of_replay_out_of_range_are_refused(name: str, fields: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)
