"""What a reward model reads: a prompt with its response, in the model's own form and tokens."""

from __future__ import annotations

from typing import Any, Literal

from jinja2 import TemplateError

from rlkit.errors import UserError
from rlkit.rewards.inputs import completion_text

Form = Literal["auto", "chat", "pair"]


class Reader:
    """Writes a prompt and its response for one reward model."""

    def __init__(self, tokenizer: Any, name: str, form: Form, *, eos: bool) -> None:
        self.tokenizer = tokenizer
        self.name = name
        """What messages call the model."""
        self.form: Form = form
        self.eos = eos

    def ids(self, prompt: Any, completion: Any, *, finished: bool) -> list[int]:
        """The tokens of a prompt with its response; texts, or messages.

        Raises UserError for messages that the model has no template for, or that it refuses.
        """
        if self.form == "pair":
            return self._encoded(as_text(prompt), completion_text(completion))
        if not isinstance(prompt, str):
            return self._chat([*prompt, *messages(completion, "assistant")])
        if self.form == "chat":
            return self._chat([*messages(prompt, "user"), *messages(completion, "assistant")])
        ids = self._encoded(prompt + completion_text(completion))
        end = self.tokenizer.eos_token_id
        if self.eos and finished and end is not None and ids[-1:] != [end]:
            ids.append(end)
        return ids

    def _encoded(self, *texts: str) -> list[int]:
        """The tokens of a text, or of a pair, with those that the tokenizer adds to it."""
        ids: list[int] = self.tokenizer(*texts)["input_ids"]
        return ids

    def _chat(self, chat: list[Any]) -> list[int]:
        if self.tokenizer.chat_template is None:
            raise UserError(
                f"the reward model {self.name} has no chat template, and it is to read messages; "
                "use reward.model.form=pair if it was trained on pairs of texts, or a reward model "
                "for chats"
            )
        try:
            text = self.tokenizer.apply_chat_template(chat, tokenize=False)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise UserError(
                f"the chat template of the reward model {self.name} refuses the messages: {error}"
            ) from error
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def messages(text: Any, role: str) -> list[Any]:
    """A text as a message; messages as they are."""
    return [{"role": role, "content": text}] if isinstance(text, str) else [*text]


def as_text(prompt: Any) -> str:
    """A prompt as one text: the contents of its messages, one after the other."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(message["content"]) for message in prompt)
