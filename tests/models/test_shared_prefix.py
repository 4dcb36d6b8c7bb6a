"""Attention over a packed row: what it asks of the model's own function, and where it stops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlkit.models.rows import model_rows
from rlkit.models.shared_prefix import Rules, SharedPrefix, attend, base_of, watched
from tests.models.test_rows import mixed, small
from tests.tiny import make_policy

CPU = torch.device("cpu")


def row_of(tokens: object) -> SharedPrefix:
    blocks = model_rows(tokens, "shared_prefix", CPU).blocks  # type: ignore[arg-type]
    assert blocks is not None
    return blocks


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
    return found.transpose(1, 2)


def seen_by(blocks: SharedPrefix, length: int, window: int | None = None) -> list[set[int]]:
    """The tokens that each token of the row sees, by one-hot values and equal scores."""
    zeros = torch.zeros(length, 1, length)
    values = torch.eye(length)[:, None]
    out = blocks.attend(plain, zeros, zeros, values, Rules(causal=True, window=window))
    return [set(row.nonzero().flatten().tolist()) for row in out[:, 0]]


def test_a_response_sees_its_prompt_and_itself_and_nothing_else() -> None:
    """The row is p p p q q a c c: a answers p with one token before its last, c answers q."""
    blocks = row_of(small())
    assert seen_by(blocks, 8) == [
        *({0}, {0, 1}, {0, 1, 2}),
        *({3}, {3, 4}),
        {0, 1, 2, 5},
        *({3, 4, 6}, {3, 4, 6, 7}),
    ]


def test_a_window_counts_the_tokens_of_the_prompt_too() -> None:
    assert seen_by(row_of(small()), 8, window=2) == [
        *({0}, {0, 1}, {1, 2}),
        *({3}, {3, 4}),
        {2, 5},
        *({4, 6}, {6, 7}),
    ]


@pytest.mark.slow
def test_what_pads_hold_reaches_no_gradient() -> None:
    """Doubling the gradient at pads would show in a sum over the padded places."""
    blocks = row_of(mixed())
    assert any(block.padded is not None for block in blocks.responses)
    length = blocks.responses[-1].stop
    torch.manual_seed(0)
    inputs = [torch.randn(length, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def row(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return blocks.attend(plain, q, k, v, Rules(causal=True, window=None))

    assert torch.autograd.gradcheck(row, inputs)


def test_every_layer_tells_its_window() -> None:
    windows: list[int | None] = []
    policy = make_policy()
    policy.layout = "shared_prefix"
    with watched(windows):
        policy.logp(small())
    policy.logp(small())
    assert windows == [None, None], "one of each layer, and none once nobody listens"


def test_only_functions_that_take_any_mask_are_called() -> None:
    assert base_of(make_policy().model) == "sdpa"
    assert base_of(make_policy(attn_implementation="eager").model) == "eager"
    assert base_of(make_policy(attn_implementation="flex_attention").model) is None


def test_a_mask_of_the_whole_row_is_refused() -> None:
    policy = make_policy()
    policy.layout = "shared_prefix"
    rows = model_rows(small(), "shared_prefix", CPU)
    q = torch.zeros(1, 2, 8, 4)
    with rows.attention(policy.model), pytest.raises(ValueError, match="a mask of its own"):
        attend(policy.model, q, q, q, torch.ones(1, 1, 8, 8))
