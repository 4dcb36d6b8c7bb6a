"""What ends a response: tokens, and texts that appear in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.errors import UserError
from rlkit.models.policy import Policy


def end_tokens(policy: Policy) -> list[int]:
    """The tokenizer's end-of-sequence token and those of the generation config."""
    configured: Any = getattr(policy.model.generation_config, "eos_token_id", None)
    ends: list[Any] = configured if isinstance(configured, list) else [configured]
    ends = [policy.tokenizer.eos_token_id, *ends]
    return sorted({end for end in ends if end is not None})


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """The tokens that are left out where a response becomes text, by their own text."""
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()
    return named | {token.content: number for number, token in added if token.special}


REPLACEMENT = "\ufffd"
"""What bytes become that are no character, such as those of one that is not complete yet."""
MARGIN = 8
"""Characters by which the text of a response's last tokens may begin or end otherwise than that of
all of them: spaces that the decoder adds or leaves out, a word that has lost its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """`rollout.stop`, by how each text is found."""

    tokens: tuple[int, ...]
    """Texts that are a special token: they never appear as text, and end a response as tokens."""
    plain: tuple[str, ...]
    """Texts that are looked for in the response without its special tokens."""
    mixed: tuple[str, ...]
    """Texts with a special token among others: they are looked for where those are kept."""

    @property
    def searched(self) -> tuple[tuple[tuple[str, ...], bool], ...]:
        """The texts to look for, and whether special tokens are left out there."""
        return tuple((t, skip) for t, skip in ((self.plain, True), (self.mixed, False)) if t)

    @staticmethod
    def of(texts: Sequence[str], special: Mapping[str, int]) -> Stops:
        """Split the texts by the tokenizer's special tokens."""
        rest = [text for text in texts if text not in special]
        mixed = tuple(text for text in rest if any(token in text for token in special))
        return Stops(
            tokens=tuple(special[text] for text in texts if text in special),
            plain=tuple(text for text in rest if text not in mixed),
            mixed=mixed,
        )


def check_stops(tokenizer: Any, texts: Sequence[str]) -> None:
    """Raise UserError for a text of white space that no response of this tokenizer can hold."""
    for text in texts:
        if text.strip() or text in special_tokens(tokenizer):
            continue
        ids = tokenizer(f"1{text}1", add_special_tokens=False)["input_ids"]
        if text not in tokenizer.decode(ids, skip_special_tokens=True):
            raise UserError(
                f"rollout.stop={text!r} can never appear in a response: the model's tokenizer does "
                "not write it; leave it out"
            )


Responses = Sequence[Sequence[int]]


def contain(tokenizer: Any, responses: Responses, texts: Sequence[str], skip: bool) -> list[bool]:
    """Whether each response contains one of the texts."""
    decoded = _decoded(tokenizer, responses, skip)
    return [any(text in response for text in texts) for response in decoded]


def now_contain(
    tokenizer: Any, responses: Responses, texts: Sequence[str], skip: bool
) -> list[bool]:
    """`contain`, of responses that did not before their last token.

    A text that appears ends within the last token, so that whole responses are decoded only where
    it may have.
    """
    maybe = _candidates(tokenizer, responses, texts, skip)
    found = contain(tokenizer, [responses[i] for i in maybe], texts, skip)
    hits = {i for i, hit in zip(maybe, found, strict=True) if hit}
    return [i in hits for i in range(len(responses))]


def _candidates(
    tokenizer: Any, responses: Responses, texts: Sequence[str], skip: bool
) -> list[int]:
    """The responses in whose last tokens a text appears, and those too short to tell.

    The tokens before the last must hold a text and a margin, whatever they decode to, and no
    incomplete character except at their end: some decoders spoil the bytes beside one. Where they
    do not, twice as many are decoded.
    """
    need = max(map(len, texts)) + MARGIN
    if any(REPLACEMENT in text for text in texts):
        return list(range(len(responses)))
    maybe, rest, size = list[int](), list(range(len(responses))), need + 1
    while rest:
        maybe += [i for i in rest if len(responses[i]) <= size]
        long = [i for i in rest if len(responses[i]) > size]
        tails = [list(responses[i][-size:]) for i in long]
        decoded = _decoded(tokenizer, [*tails, *(tail[:-1] for tail in tails)], skip)
        rest = []
        for i, tail, before in zip(long, decoded[: len(long)], decoded[len(long) :], strict=True):
            sound = REPLACEMENT not in tail.rstrip(REPLACEMENT)
            if not sound or len(before.rstrip(REPLACEMENT)) < need:
                rest.append(i)
            elif any(text in tail for text in texts):
                maybe.append(i)
        size *= 2
    return maybe


def _decoded(tokenizer: Any, responses: Responses, skip: bool) -> list[str]:
    """Each as text. Without any, transformers would give one that is empty."""
    if not responses:
        return []
    rows: list[str] = tokenizer.batch_decode(list(responses), skip_special_tokens=skip)
    return rows
