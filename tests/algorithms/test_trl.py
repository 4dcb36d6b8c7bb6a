"""Losses and corrections against TRL's own code on the same tensors: value and gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms
from rlkit.registry import build
from rlkit.testing.losses import examples
from rlkit.training.objective import Objective
from tests.trl_losses import MAX_COMPLETION_LENGTH, trl_loss, vllm_ratio


def inputs(seed: int = 2) -> tuple[Tensor, LossBatch]:
    """Log-probs that differ from prox and behavior, and one advantage per response."""
    logp, batch = examples(frozenset(), seed=seed)
    logp = (logp + 0.6 * (logp - batch.behavior_logp)).requires_grad_()
    return logp, replace(batch, advantage=batch.advantage[:, :1].expand_as(logp))


def ours(loss: Any, logp: Tensor, batch: LossBatch, *corrections: Any) -> tuple[Tensor, Any]:
    """The loss that training minimizes, and its metrics still unreduced."""
    objective = Objective(
        loss,
        corrections=[(str(i), part) for i, part in enumerate(corrections)],
        max_completion_length=MAX_COMPLETION_LENGTH,
    )
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    out = objective.output(policy, batch, torch.ones_like(batch.expert))
    return objective.reduce(out.terms, objective.counts(out.terms)), out.metrics


def assert_equal(a: Tensor, b: Tensor, logp: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    gradients = [torch.autograd.grad(loss, logp)[0] for loss in (a, b)]
    assert gradients[1].count_nonzero() > 5, "the case has a gradient to compare"
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-15)


def part_of(metric: Tensor, batch: LossBatch) -> bool:
    """Whether a 0/1 metric is neither 0 nor 1 everywhere."""
    chosen = metric[batch.mask if metric.dim() == 2 else batch.mask.any(-1)]
    return 0 < float(chosen.mean()) < 1


CLIP: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.3}


@pytest.mark.parametrize("delta", [None, 1.6])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("ppo", "bnpo"), ("grpo", "grpo"), ("dr_grpo", "dr_grpo"), ("dapo", "dapo")],
)
def test_clipped_surrogates(name: str, kind: str, delta: float | None) -> None:
    logp, batch = inputs()
    found, metrics = ours(build("loss", name, **CLIP, delta=delta), logp, batch)
    assert part_of(metrics["policy/clip_fraction"], batch), "the batch exercises the clip"
    assert_equal(found, trl_loss(kind, logp, batch, **CLIP, delta=delta), logp)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("gspo", "grpo", {"clip_low": 0.05, "clip_high": 0.05}),
        ("luspo", "luspo", {"clip_low": 0.05, "clip_high": 0.05}),
        ("gmpo", "gmpo", {"clip_low": 0.2, "clip_high": 0.2}),
        ("rloo", "rloo", {"clip_low": 0.2, "clip_high": 0.3}),
    ],
)
@pytest.mark.parametrize("seed", [2, 5])
def test_losses_on_a_responses_ratio(
    name: str, kind: str, options: dict[str, Any], seed: int
) -> None:
    logp, batch = inputs(seed)
    found, metrics = ours(build("loss", name, **options), logp, batch)
    assert part_of(metrics["policy/clip_fraction"], batch), "the batch exercises the clip"
    theirs = trl_loss(kind, logp, batch, **options, importance_sampling_level="sequence")
    assert_equal(found, theirs, logp)


def test_rloo_adds_an_empty_response_as_trl_does() -> None:
    logp, batch = inputs()
    batch = replace(batch, mask=batch.mask & (torch.arange(8) != 3)[:, None])
    found, _ = ours(build("loss", "rloo", count_empty_rows=True), logp, batch)
    assert_equal(found, trl_loss("rloo", logp, batch, clip_low=0.2, clip_high=0.2), logp)


@pytest.mark.parametrize("cap", [1.2, 5.0])
def test_cispo(cap: float) -> None:
    """TRL's epsilon_high is the bound itself."""
    logp, batch = inputs()
    loss = build("loss", "cispo", convention="absolute_cap", clip_high=cap)
    found, metrics = ours(loss, logp, batch)
    assert part_of(metrics["policy/clip_fraction"], batch) == (cap < 2)
    assert_equal(found, trl_loss("cispo", logp, batch, clip_high=cap), logp)


@pytest.mark.parametrize(("positive", "negative"), [(1.0, 1.05), (3.0, 0.5)])
def test_sapo(positive: float, negative: float) -> None:
    logp, batch = inputs()
    found, _ = ours(build("loss", "sapo", tau_pos=positive, tau_neg=negative), logp, batch)
    options: dict[str, Any] = {"sapo_temperature_pos": positive, "sapo_temperature_neg": negative}
    assert_equal(found, trl_loss("sapo", logp, batch, **options), logp)


@pytest.mark.parametrize("shapes", [(2.0, 3.0, 3.0, 2.0), (1.1, 0.0, 0.4, 0.7)])
@pytest.mark.parametrize("lag", [False, True])
@pytest.mark.parametrize("far", [False, True])
def test_vespo(shapes: tuple[float, ...], lag: bool, far: bool) -> None:
    """`far` sends tokens and products beyond every clamp."""
    logp, batch = inputs()
    if far:
        shift = torch.tensor([0.0, 25.0, -25.0, 5.0, -8.0, 0.0])
        rows = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.5, 1.0, 0.0, 0.0])[:, None]
        batch = replace(batch, prox_logp=batch.prox_logp - rows * shift)
    names = ("k_pos", "lambda_pos", "k_neg", "lambda_neg")
    fields = dict(zip(names, shapes, strict=True))
    found, _ = ours(build("loss", "vespo", **fields, use_behavior=lag), logp, batch)
    weight = {"importance_sampling_ratio": vllm_ratio(batch, "token_truncate", low=None, high=1e30)}
    options: dict[str, Any] = {f"vespo_{name}": value for name, value in fields.items()}
    theirs = trl_loss("vespo", logp, batch, extra=weight if lag else None, **options)
    assert_equal(found, theirs, logp)


@pytest.mark.parametrize(
    "mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
)
@pytest.mark.parametrize("low", [None, 0.725])
@pytest.mark.parametrize("kind", ["grpo", "dapo"])
def test_importance_weights(kind: str, mode: str, low: float | None) -> None:
    """TRL multiplies its vLLM weight onto the clipped term, as our correction does."""
    logp, batch = inputs()
    level, bound = mode.split("_")
    high = 1.3 if level == "token" else 3.0
    weight = vllm_ratio(batch, mode, low=low, high=high)
    assert weight.unique().numel() > 4, "weights inside the bounds and beyond"
    part = build("correction", "tis", level=level, mode=bound, is_min=low, is_max=high)
    found, _ = ours(build("loss", kind, **CLIP), logp, batch, part)
    theirs = trl_loss(kind, logp, batch, extra={"importance_sampling_ratio": weight}, **CLIP)
    assert_equal(found, theirs, logp)


@pytest.mark.parametrize("reference", ["prox", "behavior"])
@pytest.mark.parametrize("delta", [0.0, 0.05])
def test_the_off_policy_sequence_mask(delta: float, reference: str) -> None:
    """TRL measures the drift from the sampler's log-probs where it has them, else from prox."""
    logp, batch = inputs(seed=0)
    part = build("correction", "opsm", delta=delta, reference=reference)
    found, _ = ours(build("loss", "grpo", **CLIP), logp, batch, part)
    sampled = {"sampling_per_token_logps": batch.behavior_logp} if reference == "behavior" else {}
    theirs = trl_loss("grpo", logp, batch, extra=sampled, **CLIP, off_policy_mask_threshold=delta)
    assert_equal(found, theirs, logp)
    plain, _ = ours(build("loss", "grpo", **CLIP), logp, batch)
    assert not torch.allclose(found, plain), "the case drops a response"
