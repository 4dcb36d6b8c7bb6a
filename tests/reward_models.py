"""Tiny reward models and their tokenizers, made in memory or in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from rlkit.rewards.learned.load import load_models
from tests.tiny import make_chat_tokenizer, make_tokenizer


def make_reward_model(seed: int = 0, labels: int = 1, **settings: Any) -> Any:
    """A random classifier of the tiny tokenizer's texts."""
    tiny: dict[str, Any] = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
            initializer_range=0.5,
            **{"num_labels": labels, **tiny, **settings},
        )
        return LlamaForSequenceClassification(config)


def save_reward_model(folder: Path, seed: int = 0, *, chat: bool = False, **settings: Any) -> str:
    """Save a random one; returns the folder's name."""
    make_reward_model(seed, **settings).save_pretrained(folder)
    (make_chat_tokenizer() if chat else make_tokenizer()).save_pretrained(folder)
    return str(folder)


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is loaded from now on."""
    loads: list[Any] = []

    def counted(paths: Any, dtype: torch.dtype) -> Any:
        loads.append(paths)
        return load_models(paths, dtype)

    monkeypatch.setattr("rlkit.rewards.learned.scorer.load_models", counted)
    return loads
