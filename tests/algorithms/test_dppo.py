"""DPPO by hand: which tokens stay, and with which weight."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import PolicyTerms
from rlkit.registry import build
from tests.algorithms.tokens import MOVES, metric, moved, pushes, total

TOO_HIGH, TOO_LOW = [0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("name", "fields", "good", "bad"),
    [
        ("dppo", {}, TOO_HIGH, TOO_LOW),
        ("dppo", {"delta_high": 0.3, "delta_low": 0.05}, [1] * 6, [1, 1, 1, 0, 0, 1]),
        ("dppo", {"delta_high": 0.09}, [0, 0, 1, 1, 1, 0], TOO_LOW),
        ("dppo_ipo", {}, [0, 1, 1, 1, 0, 1], [0, 1, 1, 1, 0, 1]),
        ("dppo_ipo", {"delta_low": 0.3, "delta_high": 0.099}, [0, 0, 1, 0, 0, 0], [1] * 6),
        ("dppo_kl", {}, [0, 1, 1, 1, 1, 0], TOO_LOW),
        ("dppo_kl", {"delta_high": 0.15, "delta_low": 0.02}, [1] * 6, [1, 1, 1, 0, 0, 1]),
    ],
)
def test_dppo_stops_where_the_probability_has_moved_too_far(
    name: str, fields: dict[str, Any], good: list[int], bad: list[int]
) -> None:
    """A hundredfold rise of a rare token moves the probability by 0.099 only, though its binary KL
    is 0.1; a move back towards the sampler is never stopped, except by the symmetric form.

    KL of 0.5 to 0.6 is 0.0204, to 0.75 0.144, to 0.4 0.0204 and to 0.25 0.144.
    """
    if name == "dppo_ipo" and not fields:
        fields = {"delta_low": 0.101, "delta_high": 0.101}
    for advantage, kept in ((2.0, good), (-2.0, bad)):
        logp, batch = moved(advantage)
        ratio = [pi / mu for mu, pi in MOVES]
        coefficient = build("loss", name).config.log_ratio_sq_coef
        pull = [2 * coefficient * math.log(r) for r in ratio]
        expected = [advantage * r * k - p for r, k, p in zip(ratio, kept, pull, strict=True)]
        assert pushes(name, logp, batch, **fields).tolist() == pytest.approx(expected)
        assert metric(name, logp, batch, "kept", **fields) == pytest.approx(sum(kept) / 6)
        assert metric(name, logp, batch, "clip_fraction", **fields) == pytest.approx(
            1 - sum(kept) / 6
        )


def test_dppo_counts_a_zero_advantage_with_the_negative_ones() -> None:
    logp, batch = moved(0.0)
    assert metric("dppo", logp, batch, "kept") == pytest.approx(5 / 6)
    assert metric("dppo", logp, batch, "kept", delta_high=0.01) == pytest.approx(5 / 6)


def test_dppos_detached_form_caps_the_weight_and_has_the_gradient_of_the_ratio() -> None:
    logp, batch = moved(2.0)
    ratio = pushes("dppo", logp, batch)
    assert torch.equal(pushes("dppo", logp, batch, form="detached", ratio_cap=1e4), ratio)
    capped = pushes("dppo", logp, batch, form="detached")
    assert capped[-1] == 40.0 and ratio[-1] == pytest.approx(200.0)
    value = total("dppo", logp, batch, form="detached")
    assert value == pytest.approx(-float((capped * logp[0]).sum()))


def test_dppos_quadratic_term_is_on_dropped_tokens_too() -> None:
    logp, batch = moved(2.0)
    plain = total("dppo", logp, batch)
    squares = sum(math.log(pi / mu) ** 2 for mu, pi in MOVES)
    assert total("dppo", logp, batch, log_ratio_sq_coef=0.5) == pytest.approx(plain + squares / 2)
    assert plain == pytest.approx(-2 * sum(pi / mu for mu, pi in MOVES[1:]))


def test_the_binary_kl_of_certain_tokens_is_a_number() -> None:
    """Probabilities of exactly one leave nothing for the other tokens; float32 included."""
    for dtype in (torch.float64, torch.float32):
        pairs = [(1.0, 1.0), (1.0, 0.5), (0.5, 1.0), (1e-30, 1.0)]
        logp, batch = moved(1.0, pairs)
        batch = replace(
            batch, behavior_logp=batch.behavior_logp.to(dtype), advantage=batch.advantage.to(dtype)
        )
        g = pushes("dppo_kl", logp.to(dtype), batch, log_ratio_clamp=None)
        assert g.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0])
    logp, batch = moved(-1.0, [(1.0, 0.99), (1.0, 0.5)])
    assert pushes("dppo_kl", logp, batch).tolist() == pytest.approx([-0.99, 0.0])


def test_dppo_keeps_valid_tokens_alone_and_clamps_their_ratio() -> None:
    logp, batch = moved(2.0)
    batch = replace(batch, mask=torch.arange(6)[None] < 5)
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    assert build("loss", "dppo")(policy, batch).metrics["kept"].tolist() == [[0, 1, 1, 1, 1, 0]]
    found = pushes("dppo", logp, batch, log_ratio_clamp=0.3)
    assert found.tolist() == pytest.approx([0, 2.4, 2, 1.6, 0, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dppo", {"divergence": "tv", "form": "ratio", "log_ratio_sq_coef": 0.0}),
        ("dppo_kl", {"divergence": "kl", "delta_low": 0.05, "delta_high": 0.05}),
        ("dppo_ipo", {"divergence": "ipo", "delta_low": 0.1, "log_ratio_sq_coef": 1e-3}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()
