"""The blocks of logits together are the logits, each with the place of its tokens."""

from __future__ import annotations

import pytest
import torch

from rlkit.models.logits import Blocks, Plan, add_product

N, V, H = 7, 11, 3


def plan(
    elements: int, softcap: float | None = None, rounded_to: torch.dtype | None = None
) -> Plan:
    return Plan(
        scale=0.5,
        softcap=softcap,
        temperature=2.0,
        entropy="none",
        elements=elements,
        recording=False,
        rounded_to=rounded_to,
    )


@pytest.mark.parametrize("elements", [1, 6, 20, 10_000])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_blocks_cover_all_logits_once_and_none_is_larger_than_asked(
    elements: int, softcap: float | None
) -> None:
    hidden, weight, bias = torch.randn(N, H), torch.randn(V, H), torch.randn(V)
    ids = torch.arange(N) % V
    x = 0.5 * (hidden @ weight.t() + bias)
    bend = None if softcap is None else 1 - (x / softcap).tanh() ** 2
    expected = (x if softcap is None else softcap * (x / softcap).tanh()) / 2
    seen, found = torch.zeros(N, V), torch.zeros(N)
    for block in Blocks(plan(elements, softcap), ids, bias, (hidden, weight)):
        assert block.logits.numel() <= elements
        torch.testing.assert_close(block.logits, expected[block.rows, block.columns])
        if bend is not None:
            torch.testing.assert_close(block.bend, bend[block.rows, block.columns])
        seen[block.rows, block.columns] += 1
        found[block.rows] = block.own(block.logits, found[block.rows])
        block.add_own(block.logits, torch.ones(len(block.logits)))
        more = block.logits - expected[block.rows, block.columns]
        own = ids[block.rows, None] == torch.arange(V)[block.columns]
        torch.testing.assert_close(more, own.float())
    assert bool((seen == 1).all())
    torch.testing.assert_close(found, expected[torch.arange(N), ids])


def test_half_precision_factors_are_summed_in_float32() -> None:
    """1 + 1/512 is no bfloat16 number, nor are the sums that a bfloat16 product would round."""
    ones = torch.ones(1, 512).bfloat16()
    parts = torch.full((512, 1), 1 / 512).bfloat16()
    parts[0] = 1.0
    out = torch.zeros(1, 1)
    made = plan(1)
    add_product(out, made.factor(ones), made.factor(parts))
    assert out.item() == 1 + 511 / 512
    assert made.factor(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


def test_factors_are_rounded_as_autocast_would() -> None:
    third = torch.tensor([1 / 3])
    rounded = plan(1, rounded_to=torch.bfloat16).factor(third)
    assert torch.equal(rounded, third.bfloat16().float()) and not torch.equal(rounded, third)
