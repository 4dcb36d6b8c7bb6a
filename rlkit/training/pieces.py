"""The text of each token of a response, so that it can be shown without a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rlkit.rollout.turns_cut import INCOMPLETE

MOST_TOKENS = 4
"""A character has at most so many bytes, and a token at least one."""


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """One text per token; joined they are `tokenizer.decode(ids)`, special tokens included.

    A character made of several tokens belongs to the last of them. Most tokenizers decode a token
    alone as they do in a text; some drop its leading space, which a token before it keeps.
    """
    text = _decode(tokenizer, ids)
    found: list[str] = []
    for way in (_alone, _after_another):
        found = _whole_characters(tokenizer, ids, way(tokenizer, ids))
        if "".join(found) == text:
            return found
    return list(_cut(text, found))


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text


def _alone(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token decoded by itself."""
    known = {token: _decode(tokenizer, [token]) for token in set(ids)}
    return [known[token] for token in ids]


def _after_another(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token decoded after the first one of the response."""
    first = _decode(tokenizer, ids[:1])
    known = {token: _decode(tokenizer, [ids[0], token])[len(first) :] for token in set(ids[1:])}
    return [first, *(known[token] for token in ids[1:])]


def _whole_characters(tokenizer: Any, ids: Sequence[int], found: Sequence[str]) -> list[str]:
    """The pieces, where neighbors that hold parts of a character are decoded together."""
    out: list[str] = []
    start = 0
    for end, piece in enumerate(found, start=1):
        together = piece if start == end - 1 else _decode(tokenizer, ids[start:end])
        waits = together.endswith(INCOMPLETE) and end - start < MOST_TOKENS and end < len(found)
        out.append("" if waits else together)
        start = start if waits else end
    return out


def _cut(text: str, found: Sequence[str]) -> Iterator[str]:
    """The text in pieces of about the sizes found; the last has what is left."""
    at = 0
    for piece in found[:-1]:
        yield text[at : at + len(piece)]
        at += len(piece)
    if found:
        yield text[at:]
