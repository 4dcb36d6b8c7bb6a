"""Which layout a run's forwards get."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.layout import choose_layout
from tests.architectures import FAMILIES, tiny_policy
from tests.models.test_rows import apart, mixed, read
from tests.tiny import make_policy

PADDED = {
    "gptj": "nats",
    "mamba": "nats",
    "jamba": "nats",
    "doge": "a mask of its own",
    "llama4_text": "chunked_attention",
    "moshi": "how far they see",
}
"""Architectures that cannot be packed, and a part of the reason."""


def test_a_model_with_plain_attention_shares_prompts() -> None:
    policy = make_policy()
    assert choose_layout(policy, "auto", 0) is None
    assert policy.layout == "shared_prefix"


@pytest.mark.parametrize("kind", PADDED)
def test_a_model_that_cannot_be_packed_is_padded_and_the_user_is_told_why(kind: str) -> None:
    policy = tiny_policy(kind)
    told = choose_layout(policy, "auto", 0)
    assert policy.layout == "padded"
    assert told is not None and type(policy.model).__name__ in told and PADDED[kind] in told
    with pytest.raises(UserError, match="is not exact for a .*; use train.packing=auto"):
        choose_layout(policy, "shared_prefix", 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_that_is_packed_has_the_gradient_of_rows(kind: str) -> None:
    policy = tiny_policy(kind)
    choose_layout(policy, "auto", 0)
    if policy.layout != "padded":
        _, packed = read(policy, policy.layout, mixed())
        expected = row_by_row(policy, mixed())
        assert apart(packed, expected) < 1e-5


def row_by_row(policy: Policy, tokens: Tokens) -> torch.Tensor:
    """The gradient of `read`, from every row alone: gemma3n's of a padded batch is not finite."""
    policy.layout = "padded"
    policy.model.zero_grad()
    weight = torch.linspace(0.1, 1, tokens.response_ids.numel()).view_as(tokens.response_ids)
    for row in range(len(weight)):
        terms = policy.terms(tokens.rows(torch.tensor([row])), "gradient")
        length = terms.logp.shape[1]
        ((terms.logp + 0.3 * terms.entropy) * weight[row, :length]).sum().backward()
    return torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
            for p in policy.model.parameters()
        ]
    )


@pytest.mark.parametrize("half", [False, True])
def test_rounding_is_no_reason_to_pad(half: bool) -> None:
    policy = make_policy(half=half)
    choose_layout(policy, "auto", 0)
    assert policy.layout == "shared_prefix"


def test_a_model_whose_responses_see_each_other_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlkit.models import shared_prefix

    monkeypatch.setattr(shared_prefix.SharedPrefix, "attend", _whole_row)
    policy = make_policy()
    assert "nats" in str(choose_layout(policy, "auto", 0))
    assert policy.layout == "padded"


def _whole_row(self: Any, attention: Any, *row: Any) -> torch.Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in row[:3])
    out: torch.Tensor = attention(q, k, v, None)[0]
    return out


def test_what_is_asked_for_is_done() -> None:
    policy = make_policy()
    for asked in ("padded", "packed"):
        assert choose_layout(policy, asked, 0) is None
        assert str(policy.layout) == asked


@pytest.mark.parametrize("saved", ["padded", "shared_prefix"])
def test_a_run_that_continues_keeps_its_layout(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding could decide otherwise where the run goes on."""
    calls: list[Policy] = []
    monkeypatch.setattr("rlkit.rollout.layout.refused", lambda policy, *_: calls.append(policy))
    policy = make_policy()
    assert choose_layout(policy, "auto", 0, saved) is None
    assert policy.layout == saved and not calls


def test_a_run_that_goes_on_with_another_attention_function_chooses_again() -> None:
    policy = make_policy(attn_implementation="flex_attention")
    choose_layout(policy, "auto", 0, "shared_prefix")
    assert policy.layout == "padded"
