"""Responses of another tokenizer, encoded again from their texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rlkit.batch import Messages
from rlkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextEncoder(Protocol):
    """A tokenizer with its chat template."""

    tokenizer: PreTrainedTokenizerBase

    def asked(self, prompt: str | Messages) -> str | Messages:
        """The prompt as the run's own are: a text may become a user message."""
        ...

    def encode(self, prompt: str | Messages) -> list[int]:
        """A prompt's token ids."""
        ...

    def response(self, text: str) -> list[int]:
        """A response's token ids, with the token that ends it."""
        ...


def encoded(text: str, finish_reason: str, encoder: TextEncoder) -> tuple[list[int], bool]:
    """A response's token ids, and whether they decode to another text.

    The token that ends it is there only if the response ended (`stop`).
    """
    ids = encoder.response(text)
    changed = encoder.tokenizer.decode(ids, skip_special_tokens=True) != text
    return (ids if finish_reason == "stop" else ids[:-1]), changed


@dataclass
class Counts:
    """What became of the responses that were encoded again."""

    responses: int = 0
    changed: int = 0
    """Those that decode to another text than was stored."""
    before: int = 0
    after: int = 0
    """Tokens of them."""


class Reencoder:
    """Rows of another tokenizer, with the token ids of this one. Their log-probs become unknown."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self.counts = Counts()

    def row(self, row: dict[str, Any], place: str) -> dict[str, Any]:
        """A stored row, encoded again.

        Raises UserError if it has not the texts, or if some of its tokens are not the policy's own:
        which of the new ones those are is unknown.
        """
        asked, text = row.get("messages") or row.get("prompt"), row.get("response")
        if not asked or text is None:
            raise UserError(
                f"{place} has no text of a prompt and of a response, so they cannot be encoded "
                "with this model's tokenizer"
            )
        before = row["response_ids"]
        mask = row.get("loss_mask")
        if mask is not None and not all(mask[:-1]):  # an import masks an end without a log-prob
            raise UserError(
                f"{place} has tokens that are not the policy's own (loss_mask), whose places "
                "another tokenizer changes; train a model with the tokenizer that made it"
            )
        asked = self.encoder.asked(asked)
        ids, changed = encoded(text, row.get("finish_reason") or "stop", self.encoder)
        counts = self.counts
        counts.responses, counts.changed = counts.responses + 1, counts.changed + changed
        counts.before, counts.after = counts.before + len(before), counts.after + len(ids)
        is_text = isinstance(asked, str)
        return row | {
            "prompt": asked if is_text else None,
            "messages": None if is_text else asked,
            "prompt_ids": self.encoder.encode(asked),
            "response_ids": ids,
            "behavior_logp": None,
            "loss_mask": None,
            "token_extras": None,
        }
