"""Texts and chats as token ids: exactly what the text, or the model's chat template, writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from rlkit.batch import Messages
from rlkit.errors import UserError
from rlkit.interfaces import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tool = Mapping[str, Any]
"""A tool's JSON schema."""
PROBE = "4711"
"""A text to see what is written around it."""
FRAME = 8
"""A template without special tokens is recognized by at least this many characters around."""
SHOWN = 400
"""How many characters of a prompt are shown."""


def special_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts of a tokenizer's special tokens."""
    known = tokenizer.added_tokens_decoder.values()
    marked = (token.content for token in known if token.special)
    return tuple(t for t in {*marked, *tokenizer.all_special_tokens} if t.strip())


class Encoder:
    """A tokenizer and its chat template, as a run applies them to prompts and demonstrations.

    `chat_template`: whether a text becomes a user message if the tokenizer has a template. auto =
    unless it carries the template's tokens already; never = texts stay texts, as in TRL.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, chat_template: ChatTemplate = "auto"
    ) -> None:
        self.tokenizer = tokenizer
        self.mode: ChatTemplate = chat_template
        self.has_template = tokenizer.chat_template is not None

    def asked(self, prompt: str | Messages) -> str | Messages:
        """The prompt as a reward sees it: a text becomes a user message if it is to be one."""
        if isinstance(prompt, str) and self.wraps(prompt):
            return [{"role": "user", "content": prompt}]
        return prompt

    def wraps(self, text: str) -> bool:
        """Whether a text becomes a user message."""
        if not self.has_template or self.mode == "never":
            return False
        return self.mode == "always" or not self.is_rendered(text)

    def is_rendered(self, text: str) -> bool:
        """Whether a text was written by the chat template already.

        It holds one of the template's special tokens; for a template without any, it begins and
        ends as the template's texts do.
        """
        if not self.has_template:
            return False
        if self._marks:
            return any(mark in text for mark in self._marks)
        before, behind = self._frame
        framed = before and behind and len(before + behind) >= FRAME
        return bool(framed) and text.strip().startswith(before) and text.strip().endswith(behind)

    def encode(self, prompt: str | Messages, tools: Sequence[Tool] = ()) -> list[int]:
        """The token ids of a prompt: text with what the tokenizer puts in front, or a chat.

        The chat template is given the schemas of the `tools`, if there are any. Raises UserError
        for what cannot be encoded, and for messages that the template refuses.
        """
        if isinstance(prompt, str):
            ids = self._ids(prompt, special=not self.is_rendered(prompt))
            behind = self.added_behind
            return ids[: -len(behind)] if behind and ids[-len(behind) :] == behind else ids
        if not self.has_template:
            raise UserError(
                "the prompts are chat messages, but this model's tokenizer has no chat template; "
                "use a chat model or a task with text prompts"
            )
        return self._ids(self._render(prompt, answer_follows=True, tools=tools), special=False)

    def response(self, text: str) -> list[int]:
        """The token ids of a response, with the token that ends the assistant's turn.

        What the template writes behind a user's message, up to the last special token; the text
        and the tokenizer's end of sequence if there is no template or it ends no turn.
        """
        if self.has_template and self.mode != "never":
            said = text.strip()
            before, written, behind = self._turn(text if said else PROBE).rpartition(said or PROBE)
            ends = [behind.rfind(t) + len(t) for t in self.special_tokens if t in behind]
            if written and ends:
                return self._ids(before + said + behind[: max(ends)], special=False)
        end: Any = self.tokenizer.eos_token_id
        return [*self._ids(text, special=False), end]

    def rendered(self, messages: Messages) -> str:
        """What the chat template writes for messages that an answer follows.

        Raises UserError if the template refuses them.
        """
        return self._render(messages, answer_follows=True)

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """The texts of the tokenizer's special tokens."""
        return special_texts(self.tokenizer)

    @cached_property
    def added_behind(self) -> list[int]:
        """Tokens that the tokenizer adds behind a text; they would end a prompt."""
        bare, full = self._ids(PROBE, special=False), self._ids(PROBE, special=True)
        for place in range(len(full) - len(bare) + 1):
            if bare and full[place : place + len(bare)] == bare:
                return full[place + len(bare) :]
        return []

    def shown(self, ids: list[int]) -> str:
        """Tokens as a text on one line, cut in the middle if it is long."""
        text = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        if len(text) > SHOWN:
            text = f"{text[: SHOWN // 2]} ... {text[-SHOWN // 2 :]}"
        return json.dumps(text, ensure_ascii=False)

    @cached_property
    def _marks(self) -> list[str]:
        """The special tokens that the template writes around a user's text."""
        return [token for token in self.special_tokens if token in "".join(self._frame)]

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """What the template writes around a user's text; nothing if it refuses a lone one."""
        try:
            text = self._render([{"role": "user", "content": PROBE}], answer_follows=True)
        except UserError:
            return "", ""
        before, _, behind = text.partition(PROBE)
        return before.strip(), behind.strip()

    def _turn(self, text: str) -> str:
        """What the template writes for an answer, behind what it writes before it."""
        asked = [{"role": "user", "content": PROBE}]
        start = self._render(asked, answer_follows=True)
        answered = [*asked, {"role": "assistant", "content": text}]
        whole = self._render(answered, answer_follows=False)
        if whole.startswith(start):
            return whole[len(start) :]
        _, found, behind = whole.rpartition(text.strip())
        return text + behind if found else text

    def _render(
        self, messages: Messages, *, answer_follows: bool, tools: Sequence[Tool] = ()
    ) -> str:
        given: dict[str, Any] = {"tools": list(tools)} if tools else {}
        if answer_follows and messages[-1].get("role") == "assistant":  # which the answer continues
            given |= {"continue_final_message": True}
            answer_follows = False
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=answer_follows, **given
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise UserError(
                f"the model's chat template refuses its messages ({roles}): {error}"
            ) from error
        assert isinstance(text, str)
        return text

    def _ids(self, text: str, *, special: bool) -> list[int]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text cannot be encoded: character {error.start} is half of a surrogate pair"
            ) from error
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids
