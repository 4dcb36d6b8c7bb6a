"""The text of each token."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlkit.training.pieces import pieces
from tests.tiny import make_tokenizer

TEXT = "Ein schöner Tag 好的 \U0001f600!\n  x=1"


def byte_level() -> PreTrainedTokenizerFast:
    """Tokens are bytes and frequent pairs, as of GPT-2 and Qwen."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(["Tag Tag Tag ein ein"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    return tokenizer


def with_spaces_before() -> PreTrainedTokenizerFast:
    """Tokens that begin a word show the space as a block, as of Llama 2; the first loses it."""
    words = ["\u2581the", "\u2581cat", "s", "\u2581", "<unk>"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=raw)


def test_characters_of_several_tokens_belong_to_the_last_of_them() -> None:
    tokenizer = byte_level()
    ids = [*tokenizer(TEXT)["input_ids"], tokenizer.eos_token_id]
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found) == TEXT + "<|im_end|>" == tokenizer.decode(ids)
    at = next(i for i, piece in enumerate(found) if "\U0001f600" in piece)
    assert found[at - 3 : at] == ["", "", ""], "its other three bytes"


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_that_the_length_limit_cut_is_shown_as_it_is_decoded(cut: int) -> None:
    tokenizer = byte_level()
    ids = tokenizer("a\U0001f600")["input_ids"][:-cut]
    found = pieces(tokenizer, ids)
    assert "".join(found) == tokenizer.decode(ids) and found[0] == "a"


def test_a_space_that_a_token_has_only_after_another_is_kept() -> None:
    tokenizer = with_spaces_before()
    ids = [0, 1, 2, 0]
    assert tokenizer.decode([1]) == "cat", "alone it loses its space"
    assert pieces(tokenizer, ids) == ["the", " cat", "s", " the"]
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


class Odd:
    """A tokenizer whose text no token's own text tells."""

    def decode(self, ids: list[int], **how: bool) -> str:
        return "".join(f"<{i}>" for i in sorted(ids))


def test_whatever_a_tokenizer_does_the_pieces_make_the_text() -> None:
    ids = [5, 31, 2]
    found = pieces(Odd(), ids)
    assert len(found) == 3 and "".join(found) == Odd().decode(ids)


def test_no_tokens_have_no_pieces() -> None:
    assert pieces(make_tokenizer(), []) == []
    assert pieces(make_tokenizer(), [2, 1]) == ["0", "<eos>"]
