"""Scores do not depend on padding or on the rest of their batch, and a model is loaded once."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from rlkit.errors import UserError
from rlkit.rewards.learned.scorer import Scorer, Source, batched, scorer
from tests.reward_models import count_loads, save_reward_model
from tests.tiny import make_tokenizer

ROWS = [[2 + (3 * i + 5 * j) % 14 for j in range(n)] for i, n in enumerate((9, 1, 5, 9, 30, 2, 5))]


def made(path: str, dtype: str = "float32") -> Scorer:
    return Scorer(Source(paths=(path,), device="cpu", dtype=dtype))


def alone(path: str, row: list[int]) -> float:
    """The score of an unpadded row."""
    model, _ = made(path).load()
    return float(model(input_ids=torch.tensor([row])).logits)


def save_bert(folder: Path) -> str:
    """An encoder, whose tokens see those behind them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes: dict[str, Any] = {
            "num_labels": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
        }
        config = BertConfig(vocab_size=20, num_attention_heads=2, initializer_range=0.5, **sizes)
        BertForSequenceClassification(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("save", [save_reward_model, save_bert], ids=["decoder", "encoder"])
@pytest.mark.parametrize("tokens", [1, 20, 10_000])
def test_every_row_has_the_score_it_has_alone(tmp_path: Path, save, tokens: int) -> None:
    path = save(tmp_path)
    scores = made(path).score(ROWS, tokens)
    assert scores == pytest.approx([alone(path, row) for row in ROWS], abs=2e-6)
    assert len({round(score, 3) for score in scores}) == len(ROWS)


def test_padding_that_is_the_end_of_sequence_changes_no_score(tmp_path: Path) -> None:
    """Then the last other token is read, in a padded row as in one alone."""
    path = save_reward_model(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.pad_token = "<eos>"
    tokenizer.save_pretrained(path)
    rows = [[*row, 1] for row in ROWS]
    scores = made(path).score(rows, 10_000)
    assert scores == pytest.approx([alone(path, row) for row in rows], abs=2e-6)


def test_equal_rows_are_read_once_and_have_equal_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = made(save_reward_model(tmp_path))
    read: list[int] = []
    forward = Scorer._forward

    def counted(self: Scorer, model: Any, rows: Sequence[Sequence[int]]) -> Any:
        read.append(len(rows))
        return forward(self, model, rows)

    monkeypatch.setattr(Scorer, "_forward", counted)
    scores = ours.score([*ROWS, *ROWS], 10_000)
    assert scores[: len(ROWS)] == scores[len(ROWS) :] and sum(read) == len(ROWS)
    assert ours.score([], 100) == []


def test_batches_are_by_length_and_hold_no_more_tokens_than_asked() -> None:
    lengths = [len(row) for row in ROWS]
    batches = list(batched(lengths, 20))
    assert batches == [[1, 5, 2, 6], [0, 3], [4]]
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 20 for b in batches)


def test_the_longest_text_is_what_the_model_and_its_tokenizer_take(tmp_path: Path) -> None:
    path = save_reward_model(tmp_path)
    assert made(path).longest == 64
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 10
    tokenizer.save_pretrained(path)
    assert made(path).longest == 10


def test_a_model_is_loaded_once_as_long_as_somebody_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = count_loads(monkeypatch)
    source = Source(paths=(save_reward_model(tmp_path),), device="cpu", dtype="float32")
    first, second = scorer(source), scorer(source)
    assert first is second and loads == []
    assert first.score(ROWS, 50) == second.score(ROWS, 50) and len(loads) == 1
    assert scorer(source._replace(dtype="bfloat16")) is not first
    del first, second
    gc.collect()
    scorer(source).load()
    assert len(loads) == 2


def test_half_precision_scores_are_float32(tmp_path: Path) -> None:
    path = save_reward_model(tmp_path)
    half, full = made(path, "bfloat16").score(ROWS, 50), made(path).score(ROWS, 50)
    assert half == pytest.approx(full, abs=0.3) and half != full


def test_too_little_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Scorer, "_forward", full)
    with pytest.raises(
        UserError, match=r"too little memory on cpu; lower reward\.model\.batch_tok"
    ):
        made(save_reward_model(tmp_path)).score(ROWS, 50)
