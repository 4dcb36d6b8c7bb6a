"""Messages that are too long."""

from __future__ import annotations

from rlkit.interfaces import Message
from rlkit.rollout.turns_cut import cut_messages, cut_text
from tests.tiny import make_chat_tokenizer


def test_the_beginning_stays_and_the_rest_is_counted() -> None:
    tokenizer = make_chat_tokenizer()
    assert cut_text("12345", 5, tokenizer) == "12345"
    assert cut_text("123456", 5, tokenizer) == "12345\n[1 more tokens were cut]"


def test_only_texts_that_are_too_long_change() -> None:
    tokenizer = make_chat_tokenizer()
    messages: list[Message] = [
        {"role": "tool", "name": "f", "content": "1234"},
        {"role": "user", "content": [{"type": "text", "text": "12345678"}]},
        {"role": "user", "content": "12"},
    ]
    found = cut_messages(messages, 3, tokenizer)
    assert found == [
        {"role": "tool", "name": "f", "content": "123\n[1 more tokens were cut]"},
        *messages[1:],
    ]
    assert cut_messages(messages, None, tokenizer) == messages


def test_a_text_of_few_tokens_and_many_characters_stays() -> None:
    """Special tokens are one token each, whatever they are called."""
    tokenizer = make_chat_tokenizer()
    assert cut_text("<|start|><|end|>", 2, tokenizer) == "<|start|><|end|>"


def test_a_character_may_be_several_tokens() -> None:
    """Four bytes and tokens each, as byte-level tokenizers have them."""

    class Bytes:
        def __call__(self, text: str, **options: bool) -> dict[str, list[int]]:
            return {"input_ids": list(text.encode())}

        def decode(self, ids: list[int], **options: bool) -> str:
            return bytes(ids).decode(errors="replace")

    assert cut_text("\N{SNAKE}" * 5, 9, Bytes()) == "\N{SNAKE}" * 2 + "\n[11 more tokens were cut]"
    assert cut_text("\N{SNAKE}" * 5, 20, Bytes()) == "\N{SNAKE}" * 5
