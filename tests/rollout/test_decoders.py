"""One token per row at a time, from either cache: the logits of a whole forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.rollout.decoders import CarriedDecoder, SharedDecoder
from tests.tiny import make_policy

PROMPTS = torch.tensor([[3, 4, 5], [0, 6, 7]])
MASK = torch.tensor([[1, 1, 1], [0, 1, 1]])
REQUEST = torch.tensor([0, 0, 1])
FIRST, SECOND = torch.tensor([8, 9, 10]), torch.tensor([11, 12])
KEPT = torch.tensor([1, 2])


def made(model: Any, *, shares: bool) -> SharedDecoder | CarriedDecoder:
    positions = (MASK.cumsum(1) - 1).clamp(min=0)
    output = model(input_ids=PROMPTS, attention_mask=MASK, position_ids=positions, use_cache=True)
    if shares:
        return SharedDecoder(model, output, REQUEST, MASK, room=2)
    return CarriedDecoder(model, output, REQUEST, MASK)


def whole(model: Any, row: int, *ids: int) -> Tensor:
    """Logits [V] after a row's prompt without padding and these tokens."""
    request = int(REQUEST[row])
    prompt = PROMPTS[request][MASK[request] == 1]
    logits: Tensor = model(input_ids=torch.cat([prompt, torch.tensor(ids)])[None]).logits[0, -1]
    return logits


@pytest.mark.parametrize("shares", [True, False])
@torch.no_grad()
def test_rows_go_on_as_a_whole_forward_of_each_does(shares: bool) -> None:
    """Two responses to one prompt, one to a padded one; the first leaves after a token."""
    model: Any = make_policy().model
    decoder = made(model, shares=shares)
    with decoder.running():
        first = decoder.step(FIRST)
        decoder.keep(KEPT)
        second = decoder.step(SECOND)
    for row in range(3):
        torch.testing.assert_close(first[row], whole(model, row, int(FIRST[row])))
    for place, row in enumerate(KEPT.tolist()):
        ids = int(FIRST[row]), int(SECOND[place])
        torch.testing.assert_close(second[place], whole(model, row, *ids))


@torch.no_grad()
def test_finished_rows_leave_at_once_or_once_they_are_half() -> None:
    """Leaving copies the whole of the model's own cache, and nothing of the shared one."""
    model: Any = make_policy().model
    shared, carried = made(model, shares=True), made(model, shares=False)
    assert [shared.leave(live, 4) for live in (4, 3, 2)] == [False, True, True]
    assert [carried.leave(live, 4) for live in (4, 3, 2)] == [False, False, True]
