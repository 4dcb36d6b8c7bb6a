"""Rows chosen from the caches of transformers continue as a whole forward of those rows does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from rlkit.errors import UserError
from rlkit.rollout.states import Carried
from tests.architectures import FAMILIES, tiny_model

IDS = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 4, 11, 5, 2, 3], [5, 5, 12, 13, 14, 4]])
NEXT = torch.tensor([7, 9, 3, 12])


def forward(model: Any, ids: Tensor, carried: Carried | None = None, length: int = 0) -> Any:
    rows = len(ids)
    if carried is None:
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    mask = torch.ones(rows, length, dtype=torch.int64)
    return model(input_ids=ids, **carried.inputs(mask))


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_chosen_rows_go_on_as_they_would_alone(kind: str) -> None:
    """Repeated, reordered and left out; twice, as a batch does that shrinks."""
    model = tiny_model(kind)
    carried = Carried.of(model, forward(model, IDS), len(IDS))
    rows = torch.tensor([2, 0, 0, 1])
    output = forward(model, NEXT[:, None], carried.select(rows), 7)
    whole = torch.cat([IDS[rows], NEXT[:, None]], 1)
    exact = forward(model, whole).logits[:, -1]
    torch.testing.assert_close(output.logits[:, -1], exact, atol=1e-3, rtol=0)
    assert (exact[1] - exact[0]).abs().max() > 1e-2, "rows that differ"
    kept = torch.tensor([3, 1])
    carried = Carried.of(model, output, 4).select(kept)
    output = forward(model, NEXT[kept][:, None], carried, 8)
    whole = torch.cat([whole[kept], NEXT[kept][:, None]], 1)
    exact = forward(model, whole).logits[:, -1]
    torch.testing.assert_close(output.logits[:, -1], exact, atol=1e-3, rtol=0)


def test_states_have_rows_first_and_positions_in_the_last_place_but_one() -> None:
    cache: Any = DynamicCache()
    cache.update(torch.arange(4.0).view(4, 1, 1, 1), torch.zeros(4, 1, 1, 1), 0)
    cache.pair = (torch.arange(8.0).view(4, 2), [torch.arange(4.0).view(4, 1)])
    cache.position_ids = torch.arange(4).view(1, 4, 1).expand(3, 4, 1)
    cache.length = torch.tensor([4])
    carried = Carried(object(), "past_key_values", cache, 4).select(torch.tensor([3, 1]))
    assert carried.rows == 2 and carried.cache is cache
    assert cache.layers[0].keys.flatten().tolist() == [3, 1]
    assert cache.pair[0].tolist() == [[6, 7], [2, 3]] and cache.pair[1][0].flatten().tolist() == [
        3,
        1,
    ]
    assert cache.position_ids.tolist() == [[[3], [1]]] * 3
    assert cache.length.tolist() == [4]


def test_a_cache_of_another_form_and_none_at_all_are_refused_in_a_line() -> None:
    cache: Any = DynamicCache()
    cache.mixed = torch.zeros(3, 5)
    carried = Carried(torch.nn.Identity(), "past_key_values", cache, 4)
    with pytest.raises(UserError, match=r"a Identity: .*shape \[3, 5\]; use rollout"):
        carried.select(torch.tensor([0]))
    with pytest.raises(UserError, match="a Identity: it gives no cache; use rollout=vllm"):
        Carried.of(torch.nn.Identity(), {"past_key_values": None}, 4)


def test_a_model_without_attention_gets_no_mask() -> None:
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    recurrent = Carried(object(), "cache_params", "states", 2).inputs(mask)
    assert recurrent == {"cache_params": "states", "use_cache": True}
    attention = Carried(object(), "past_key_values", "states", 2).inputs(mask)
    assert attention["position_ids"].tolist() == [[1], [2]]
    assert attention["attention_mask"] is mask
