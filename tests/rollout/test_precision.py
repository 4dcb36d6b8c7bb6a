"""The dtype of an engine, and what rounding alone may do to its log-probs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.precision import engine_dtype, rounding_bound, trainer_dtype
from tests.rollout.models import make_policy

FULL, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
TOKENS = Tokens.of([torch.tensor([3])], [torch.tensor([4, 12, 5, 1, 9, 2, 8, 3])])


def some_policy(dtype: torch.dtype, autocast: torch.dtype | None = None) -> Policy:
    made = make_policy()
    torch.nn.Module.to(made.model, dtype)
    return Policy(made.model, made.tokenizer, 1.0, autocast=autocast)


@pytest.mark.parametrize(
    ("device", "dtype", "autocast", "asked", "expected"),
    [
        ("cuda:0", FULL, None, None, FULL),
        ("cuda:0", FULL, BF16, None, BF16),
        ("cuda:0", BF16, None, None, BF16),
        ("cuda:0", FULL, FP16, None, FULL),
        ("cuda:0", FP16, None, None, FP16),
        ("cuda:0", BF16, None, "float32", FULL),
        ("cpu", FULL, BF16, None, FULL),
        ("cpu", BF16, None, None, BF16),
        ("cpu", FULL, None, "bfloat16", BF16),
    ],
)
def test_the_engine_follows_the_trainer_unless_asked_otherwise(
    device: str,
    dtype: torch.dtype,
    autocast: torch.dtype | None,
    asked: str | None,
    expected: torch.dtype,
) -> None:
    """bfloat16 on a GPU if the trainer computes in it, else the dtype of the trainer's weights."""
    policy: Any = SimpleNamespace(
        device=torch.device(device), autocast=autocast, model=SimpleNamespace(dtype=dtype)
    )
    assert engine_dtype(policy, asked) == expected
    assert trainer_dtype(policy) == (autocast or dtype)


def test_in_float32_the_bound_is_a_thousandth() -> None:
    assert rounding_bound(some_policy(FULL), TOKENS, FULL) == 1e-3


def test_under_tf32_the_bound_is_that_of_ten_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of float16, which has as many. It used to be that of float32, and refused real models."""
    monkeypatch.setattr(Policy, "uses_tf32", True)
    policy = some_policy(FULL)
    assert rounding_bound(policy, TOKENS, FULL) == rounding_bound(policy, TOKENS, FP16) > 1e-3


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_the_bound_covers_another_order_of_computation_in_half_precision(
    dtype: torch.dtype,
) -> None:
    """Eager against sdpa attention, autocast against cast weights, and either against float32; it
    is far below what other weights change."""
    full, half, cast = some_policy(FULL), some_policy(dtype), some_policy(FULL, dtype)
    eager = some_policy(dtype)
    eager.model.set_attn_implementation("eager")
    bound = rounding_bound(half, TOKENS, dtype)
    sides = [policy.logp(TOKENS) for policy in (full, half, cast, eager)]
    assert max(float((a - b).abs().max()) for a in sides for b in sides) < bound
    other = make_policy(seed=1).logp(TOKENS)
    assert float((other - sides[0]).abs().max()) > 3 * bound


@pytest.mark.parametrize(
    ("dtype", "autocast", "engine"),
    [(BF16, None, FULL), (FULL, BF16, FULL), (FULL, None, BF16), (FP16, None, BF16)],
)
def test_the_coarser_side_sets_the_bound(
    dtype: torch.dtype, autocast: torch.dtype | None, engine: torch.dtype
) -> None:
    fine = rounding_bound(some_policy(FULL), TOKENS, FP16)
    assert rounding_bound(some_policy(dtype, autocast), TOKENS, engine) > 2 * fine


def test_the_bound_grows_with_the_logits_and_is_measured_without_a_trace() -> None:
    policy = some_policy(FULL)
    state = torch.get_rng_state()
    first, before = rounding_bound(policy, TOKENS, BF16), policy.logp(TOKENS)
    assert rounding_bound(policy, TOKENS, BF16) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(policy.logp(TOKENS), before)
    sharp = Policy(policy.model, policy.tokenizer, 0.5)
    assert rounding_bound(sharp, TOKENS, BF16) == pytest.approx(2 * first, rel=0.5)


def test_one_rounding_of_known_size() -> None:
    """A model of one layer, whose logits are its rounded outputs: log-probs of two tokens with
    logits +-x move by at most eps x / 2 each, so by eps x at most, times the margin 3."""
    eps, x = 2.0**-7, 3.0

    class One(nn.Module):
        dtype = FULL
        device = torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Embedding.from_pretrained(torch.tensor([[x, -x], [x, -x]]))

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            return SimpleNamespace(logits=self.head(input_ids))

    model: Any = One()
    tokens = Tokens.of([torch.tensor([0])], [torch.ones(64, dtype=torch.int64)])
    policy = Policy(model, make_policy().tokenizer, 1.0)
    found = rounding_bound(policy, tokens, BF16)
    assert 0.8 * 3 * eps * x < found <= 3 * eps * x
