"""Decoupled PPO by hand, and in its authors' form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.one_group import BEHAVIOR, PROX, responses


def three_policies() -> tuple[Tensor, LossBatch]:
    """pi / prox = 1.1, 1.3, 0.7, 5, and prox / behavior = 2, 0.5, 4, 1.5, with A = -1."""
    logp, batch = responses([[math.log(r) for r in (1.1, 1.3, 0.7, 5.0)]], [-1.0], to=PROX)
    weight = torch.tensor([[2.0, 0.5, 4.0, 1.5]], dtype=torch.float64)
    return logp, replace(batch, behavior_logp=batch.prox_logp - weight.log())


@pytest.mark.parametrize(
    ("fields", "weights", "surrogates"),
    [
        ({}, [2, 0.5, 4, 1.5], [1.1, 1.3, 0, 5]),
        ({"clip_low": 0.4}, [2, 0.5, 4, 1.5], [1.1, 1.3, 0.7, 5]),
        ({"dual_clip": 3.0}, [2, 0.5, 4, 1.5], [1.1, 1.3, 0, 0]),
        ({"is_max": 1.8}, [1.8, 0.5, 1.8, 1.5], [1.1, 1.3, 0, 5]),
        ({"is_min": 1.8}, [2, 1.8, 4, 1.8], [1.1, 1.3, 0, 5]),
        ({"is_max": 1.8, "is_mode": "mask"}, [0, 0.5, 0, 1.5], [1.1, 1.3, 0, 5]),
        ({"is_min": 1.8, "is_mode": "mask"}, [2, 0, 4, 0], [1.1, 1.3, 0, 5]),
        ({"imp_samp_max": 1.0}, [1 / 1.1, 0.5, 1 / 0.7, 0.2], [1.1, 1.3, 0, 5]),
        ({"imp_samp_max": 2.1}, [2.1 / 1.1, 0.5, 3, 0.42], [1.1, 1.3, 0, 5]),
        ({"log_ratio_clamp": math.log(1.5)}, [1.5, 1 / 1.5, 1.5, 1.5], [1.1, 1.3, 0, 0]),
    ],
)
def test_decoupled_ppo_weighs_the_clipped_surrogate_by_prox_over_behavior(
    fields: dict[str, Any], weights: list[float], surrogates: list[float]
) -> None:
    """The gradient of a token is its detached weight times u, or 0 where the clip has none."""
    logp, batch = three_policies()
    loss = build("loss", "decoupled_ppo", aggregation="token-sum", **fields)
    gradient = value_and_grad(loss, logp, batch)[1]
    expected = [w * u for w, u in zip(weights, surrogates, strict=True)]
    assert gradient[0].tolist() == pytest.approx(expected)
    metrics = loss_value(loss, logp, batch)[1]
    assert metrics["weights"] == pytest.approx(sum(weights) / 4)


def test_decoupled_ppo_clips_good_tokens_above() -> None:
    logp, batch = three_policies()
    good = replace(batch, advantage=-batch.advantage)
    for high, kept in ((0.2, [2.2, 0, 2.8, 0]), (0.4, [2.2, 0.65, 2.8, 0])):
        loss = build("loss", "decoupled_ppo", aggregation="token-sum", clip_high=high)
        assert (-value_and_grad(loss, logp, good)[1])[0].tolist() == pytest.approx(kept)
        cut = loss_value(loss, logp, good)[1]["clip_fraction"]
        assert cut == pytest.approx(kept.count(0) / 4)


def test_decoupled_ppo_is_the_form_its_authors_wrote() -> None:
    """max(-A pi / behavior, -A exp(clip(log pi / prox)) prox / behavior)."""
    logp, batch = examples(BEHAVIOR | PROX)
    a, near = batch.advantage, (logp - batch.prox_logp).clamp(math.log(0.9), math.log(1.1))
    free = -a * (logp - batch.behavior_logp).exp()
    held = -a * (near + batch.prox_logp - batch.behavior_logp).exp()
    loss = build("loss", "decoupled_ppo", clip_low=0.1, clip_high=0.1)
    value = loss_value(loss, logp, batch)[0]
    assert float(value) == pytest.approx(float(torch.max(free, held)[batch.mask].mean()))


@pytest.mark.parametrize(
    ("fields", "weight", "ratio"),
    [
        ({}, math.e**20, math.e**20),
        ({"is_log_clamp": 2.0}, math.e**2, math.e**20),
        ({"is_log_clamp": 30.0}, math.e**25, math.e**20),
        ({"log_ratio_clamp": 3.0}, math.e**3, math.e**3),
        ({"log_ratio_clamp": None}, math.e**25, math.e**25),
        ({"is_log_clamp": 2.0, "is_max": 5.0}, 5.0, math.e**20),
        ({"is_log_clamp": 2.0, "is_max": 8.0, "is_mode": "mask"}, math.e**2, math.e**20),
    ],
)
def test_the_log_of_the_weight_is_clamped_before_its_bounds(
    fields: dict[str, Any], weight: float, ratio: float
) -> None:
    """prox / behavior and pi / prox are e^25 each. The weight's clamp is the ratio's unless it has
    one of its own; a weight that the clamp brings within the bounds is not masked.
    """
    logp, batch = three_policies()
    far = torch.full_like(logp, 25.0)
    batch = replace(batch, prox_logp=logp - far, behavior_logp=logp - 2 * far)
    metrics = loss_value(build("loss", "decoupled_ppo", **fields), logp, batch)[1]
    assert metrics["weights"] == pytest.approx(weight, rel=1e-6)
    assert metrics["ratio_mean"] == pytest.approx(ratio, rel=1e-6)


def test_decoupled_ppo_refuses_bounds_the_wrong_way_round() -> None:
    with pytest.raises(UserError, match=r"is_min=3\.0 must not exceed is_max=2\.0"):
        build("loss", "decoupled_ppo", is_min=3.0, is_max=2.0)


@pytest.mark.parametrize(
    ("name", "fields", "clip"),
    [
        ("decoupled_ppo", {"clip_low": 0.15, "clip_high": 0.15}, 0.15),
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


@pytest.mark.parametrize(
    ("how", "age", "expected"),
    [
        ("log", 0, 0.2),
        ("log", 1, math.sqrt(0.2 * 0.8)),
        ("log", 3, 0.2**0.25 * 0.8**0.75),
        ("linear", 0, 0.2),
        ("linear", 1, 0.5),
        ("linear", 3, 0.65),
    ],
)
def test_prox_may_be_interpolated_by_age(how: str, age: int, expected: float) -> None:
    """behavior 0.2 and pi 0.8, at age / (age + 1) of the way, in logs or in probabilities."""
    logp, batch = responses([[math.log(4.0)]], [1.0])
    logp, behavior = logp - logp + math.log(0.8), logp - logp + math.log(0.2)
    batch = replace(batch, behavior_logp=behavior, age=torch.tensor([age]))
    loss = build("loss", "decoupled_ppo", prox="interpolated", interpolation=how, clip_high=9.0)
    assert loss.needs == {"behavior"}
    value, gradient = value_and_grad(loss, logp, batch)
    metrics = loss_value(loss, logp, batch)[1]
    assert metrics["weights"] == pytest.approx(expected / 0.2)
    assert metrics["ratio_mean"] == pytest.approx(0.8 / expected)
    assert float(value) == pytest.approx(-4.0) and float(gradient) == pytest.approx(-4.0)


@pytest.mark.parametrize(("how", "prox"), [("log", 0.4), ("linear", 0.5)])
def test_the_interpolated_prox_has_no_gradient(how: str, prox: float) -> None:
    """Behavior 0.2, pi 0.8, age 1. A weight that is cut at 1 leaves the ratio's gradient alone.

    Without the cut the gradients of the weight and of the ratio in prox would cancel.
    """
    logp, batch = responses([[math.log(4.0)]], [1.0])
    logp, behavior = logp - logp + math.log(0.8), logp - logp + math.log(0.2)
    batch = replace(batch, behavior_logp=behavior, age=torch.tensor([1]))
    fields: dict[str, Any] = {"interpolation": how, "clip_high": 9.0, "is_max": 1.0}
    loss = build("loss", "decoupled_ppo", prox="interpolated", **fields)
    value, gradient = value_and_grad(loss, logp, batch)
    assert float(value) == float(gradient) == pytest.approx(-0.8 / prox)


def test_a_way_to_interpolate_needs_interpolation() -> None:
    with pytest.raises(UserError, match="prox=interpolated"):
        build("loss", "decoupled_ppo", interpolation="linear")
