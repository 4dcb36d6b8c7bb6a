"""Another attention function in a model's place of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.models.attention import attending_by, configs_of, implementations
from tests.tiny import make_policy

IDS = torch.tensor([[3, 4, 5]])


def test_the_model_calls_the_function_and_makes_no_mask_until_the_context_ends() -> None:
    model = make_policy().model
    masks: list[Tensor | None] = []

    def zero(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any
    ) -> tuple[Tensor, None]:
        masks.append(mask)
        return torch.zeros_like(query).transpose(1, 2), None

    expected = model(input_ids=IDS).logits
    with pytest.raises(ZeroDivisionError), attending_by(model, "rlkit_zero", zero):
        assert implementations(model) == {"rlkit_zero"}
        assert not torch.equal(model(input_ids=IDS).logits, expected)
        raise ZeroDivisionError
    assert masks == [None, None], "one of each layer"
    assert implementations(model) == {"sdpa"}
    assert torch.equal(model(input_ids=IDS).logits, expected)


def test_a_configuration_that_modules_share_counts_once() -> None:
    model = make_policy().model
    assert configs_of(model) == [model.config]
