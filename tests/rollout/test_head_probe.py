"""The check that log-probs without full logits are those with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.models.head import Head
from rlkit.models.policy import Policy
from rlkit.rollout.head_probe import agrees, find_head
from rlkit.rollout.precision import rounding_bound
from tests.models.test_head import TOKENS, Shifted, model_of
from tests.tiny import make_policy, make_tokenizer

HALVES = [(torch.bfloat16, None), (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize(("dtype", "autocast"), [(torch.float32, None), *HALVES])
def test_the_measured_head_agrees_and_another_does_not(
    dtype: torch.dtype, autocast: torch.dtype | None
) -> None:
    model = model_of("gemma2").to(dtype)
    policy = Policy(model, make_tokenizer(), 0.5, autocast=autocast)
    assert find_head(policy, 0) == Head(1.0, 2.0)
    assert policy.head is None, "the policy is left as it is"
    assert not agrees(policy, Head(3.0, 2.0), 0)
    assert not agrees(policy, Head(1.0, 0.5), 0)


def test_in_float32_a_small_difference_shows() -> None:
    policy = Policy(model_of("granite"), make_tokenizer(), 1.0)
    assert agrees(policy, Head(1 / 3, None), 0)
    assert not agrees(policy, Head(1 / 3 + 1e-3, None), 0)


def test_a_model_whose_logits_depend_on_more_than_the_layer_has_no_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something that is seen in log-probs alone, since it happens to the hidden states' dtype."""
    policy = make_policy()
    assert find_head(policy, 0) == Head(1.0, None)
    layer: Any = policy.model.lm_head
    layer.register_forward_hook(lambda _module, _inputs, out: out + out.roll(1, -1))
    assert find_head(policy, 0) is None


def test_a_model_without_a_measurable_head_has_none() -> None:
    policy = make_policy()
    policy.model = Shifted(policy.model, lambda z: z + 1)  # type: ignore[assignment]
    assert Head.of(policy.model) is None and find_head(policy, 0) is None


def test_the_bound_on_rounding_includes_that_of_logits() -> None:
    """An engine stores logits in half precision, whatever the trainer does."""
    policy = Policy(model_of("gemma2").bfloat16(), make_tokenizer(), 1.0)
    expected = rounding_bound(policy, TOKENS, torch.bfloat16)
    policy.head = find_head(policy, 0)
    assert rounding_bound(policy, TOKENS, torch.bfloat16) == expected
    assert policy.head is not None
