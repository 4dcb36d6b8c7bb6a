"""Stop texts: which are tokens, which are texts, and which can never appear."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlkit.config.validation import validation_message
from rlkit.errors import UserError
from rlkit.rollout.base import RolloutConfig
from rlkit.rollout.stops import (
    Stops,
    check_stops,
    contain,
    end_tokens,
    now_contain,
    special_tokens,
)
from tests.tiny import make_policy, make_tokenizer


def test_texts_are_split_by_the_special_tokens_in_them() -> None:
    special = {"<eos>": 1, "<|end|>": 7}
    found = Stops.of(("a", "<|end|>", "<|end|>\n", "b<eos>", "<eos>", "end"), special)
    assert found.tokens == (7, 1)
    assert found.plain == ("a", "end") and found.mixed == ("<|end|>\n", "b<eos>")


def test_special_tokens_are_the_named_ones_and_the_added_ones() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["plain"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    number = tokenizer.convert_tokens_to_ids("<|end|>")
    assert special_tokens(tokenizer) == {"<pad>": 0, "<eos>": 1, "<|end|>": number}


def test_the_ends_are_those_of_the_tokenizer_and_of_the_generation_config() -> None:
    policy = make_policy()
    assert end_tokens(policy) == [1]
    for configured, expected in (([7, 5], [1, 5, 7]), (3, [1, 3]), (None, [1])):
        policy.model.generation_config.eos_token_id = configured
        assert end_tokens(policy) == expected


def test_white_space_that_the_tokenizer_never_writes_is_refused() -> None:
    """The tiny tokenizer has no white space; what it writes, and what is no white space, passes."""
    tokenizer = make_tokenizer()
    check_stops(tokenizer, ("#", "3,", "nothing of the kind"))
    for text in ("\n\n", " "):
        with pytest.raises(UserError, match="rollout.stop=.* can never appear") as caught:
            check_stops(tokenizer, ("#", text))
        assert "\n" not in str(caught.value)
    tokenizer.add_tokens(["\n\n"])
    check_stops(tokenizer, ("\n\n",))


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        RolloutConfig(stop=("#", ""))
    line = validation_message(caught.value, RolloutConfig, "rollout.")
    assert line == "rollout.stop.1='' is not valid: it must be text of 1 or more characters"


def wordpiece() -> PreTrainedTokenizerFast:
    """Words and their endings; the decoder puts spaces between words."""
    words = ["<pad>", "<eos>", "a", "b", "##a", "##b", ".", ",", "##.", "n't", "'"]
    raw = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    raw.decoder = decoders.WordPiece(cleanup=True)
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")


def bytes_and_words() -> PreTrainedTokenizerFast:
    """Every byte as a token, by ByteLevel's letters, some words, and a long run of spaces."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<eos>", *letters, "ab", "Ċa", "ĠaĊ", "ðŁ", "Ġ" * 40]
    raw = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, []))
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")


def fallback() -> PreTrainedTokenizerFast:
    """As Llama 2's: pieces with ▁ for a space, and bytes, of which one can spoil a whole run."""
    words = ["<pad>", "<eos>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "▁b", "ab", "é", ""]
    raw = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [], byte_fallback=True))
    raw.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")


TOKENIZERS = (make_tokenizer, wordpiece, bytes_and_words, fallback)


def written(tokenizer: Any, draw: random.Random) -> list[int]:
    """Tokens at random, with runs of special ones and of the bytes of some characters."""
    ids: list[int] = []
    while len(ids) < 90:
        kind = draw.random()
        if kind < 0.1:
            ids += [draw.randrange(2)] * draw.randrange(1, 30)
        elif kind < 0.6:
            ids += byte_tokens(tokenizer, draw.choice(("é\n\n", "😀\n", "中文。", "\n", "a\n")))
        else:
            ids += [draw.randrange(len(tokenizer)) for _ in range(draw.randrange(1, 6))]
    return ids


def byte_tokens(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text's bytes, if there are any; some texts lack the first byte."""
    known = tokenizer.get_vocab()
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    names = [*"".join(piece for piece, _ in letters), *(f"<0x{b:02X}>" for b in text.encode())]
    return [known[name] for name in names if name in known][len(text) % 2 :]


@pytest.mark.parametrize("made", TOKENIZERS)
@pytest.mark.parametrize("skip", [True, False])
def test_a_stop_text_is_found_in_the_last_tokens_where_it_is_in_the_whole(
    made: Callable[[], Any], skip: bool
) -> None:
    """Responses grow by one token; those that have ended are asked no more."""
    tokenizer, draw = made(), random.Random(0)
    ended = 0
    for _ in range(60):
        ids = written(tokenizer, draw)
        text = tokenizer.decode(ids, skip_special_tokens=skip)
        places = [draw.randrange(len(text)) for _ in range(2)]
        texts = tuple(text[at : at + draw.randrange(2, 12)] for at in places)
        for end in range(1, len(ids) + 1):
            found = now_contain(tokenizer, [ids[:end]], texts, skip)
            assert found == contain(tokenizer, [ids[:end]], texts, skip), (ids[:end], texts)
            if found[0]:
                ended += 1
                break
    assert ended > 30, "else hardly anything was found"


def test_bytes_that_lost_their_first_hide_no_stop_text() -> None:
    """The last tokens begin inside a character, which makes replacements of the line break too."""
    tokenizer = fallback()
    ids = byte_tokens(tokenizer, "é" * 21 + "\n") + [tokenizer.get_vocab()["a"]] * 3
    last, whole = (str(tokenizer.decode(tokens)) for tokens in (ids[-13:], ids))
    assert last.endswith("\ufffdaaa") and whole.endswith("é\naaa")
    assert now_contain(tokenizer, [ids], ("\naaa",), True) == [True]


def test_only_the_last_tokens_of_a_long_response_are_decoded() -> None:
    sizes: list[int] = []
    tokenizer = make_tokenizer()

    class Counting:
        def batch_decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
            sizes.extend(map(len, rows))
            return tokenizer.batch_decode(rows, skip_special_tokens=skip_special_tokens)

    ids = tokenizer("123" * 500)["input_ids"]
    assert now_contain(Counting(), [ids, ids], ("#", "45"), True) == [False, False]
    assert max(sizes) < 20
    longer = [*ids, *tokenizer("#")["input_ids"]]
    assert now_contain(Counting(), [ids, longer], ("#", "45"), True) == [False, True]
