"""What a folder of rollouts says of itself."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from rlkit.errors import UserError
from rlkit.models.embedded import embedded_model_dir
from rlkit.stored.card import CARD, Card, template_hash, tokenizer_hash, weights_hash


def test_a_card_comes_back(tmp_path: Path) -> None:
    card = Card(model="m", weights="w", rewards=("task", "format"), temperature=0.7)
    card.write(tmp_path)
    assert Card.read(tmp_path) == card
    assert Card.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("text", ["{", '{"format": 99}', "[]"])
def test_a_card_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(UserError, match=r"card\.json"):
        Card.read(tmp_path)


def test_hashes_change_with_what_they_are_of() -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir(0))
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["new"])
    assert tokenizer_hash(tokenizer) == tokenizer_hash(copy.deepcopy(tokenizer))
    assert tokenizer_hash(tokenizer) != tokenizer_hash(other)
    assert template_hash(tokenizer) == ""
    other.chat_template = "{{ messages }}"
    assert template_hash(other) != ""
    weights = {"a": torch.ones(2, 3), "b": torch.zeros(1, dtype=torch.bfloat16)}
    assert weights_hash(weights) == weights_hash(dict(reversed(weights.items())))
    assert weights_hash(weights) != weights_hash({**weights, "a": torch.ones(3, 2)})
