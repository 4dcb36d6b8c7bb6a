"""Messages of an environment that are too long for the policy to read whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlkit.interfaces import Message

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What part of a character is decoded to."""


def cut_messages(messages: Sequence[Message], limit: int | None, tokenizer: Any) -> list[Message]:
    """The messages, each with at most `limit` tokens of content and a line that says what is cut.

    The beginning stays: errors and results stand there more often than at the end. Content that is
    no text is left alone.
    """
    return [
        {**message, "content": cut_text(message["content"], limit, tokenizer)}
        if limit is not None and isinstance(message.get("content"), str)
        else message
        for message in messages
    ]


def cut_text(text: str, limit: int, tokenizer: Any) -> str:
    """The first `limit` tokens of a text and a marker, or the text itself if it is no longer."""
    if len(text.encode("utf-8", "surrogatepass")) <= limit:  # a token has at least one byte
        return text
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) <= limit:
        return text
    start = tokenizer.decode(ids[:limit], skip_special_tokens=False).rstrip(INCOMPLETE)
    return f"{start}\n[{len(ids) - limit} more tokens were cut]"
