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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """`rollout.stop`, by how each text is found."""

    tokens: tuple[int, ...]
    """Texts that are a special token: they never appear as text, and end a response as tokens."""
    plain: tuple[str, ...]
    """Texts that are looked for in the response without its special tokens."""
    mixed: tuple[str, ...]
    """Texts with a special token among others: they are looked for where those are kept."""

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
