"""A task's rows as prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from rlkit.batch import Messages, Prompt
from rlkit.errors import UserError, suggest
from rlkit.interfaces import ChatTemplate
from rlkit.tasks.encode import Encoder, Tool
from rlkit.tasks.identity import row_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_row(place: str, row: Any) -> None:
    """Raise UserError unless a task's row has a prompt: a text, or a list of messages."""
    if not isinstance(row, Mapping):
        raise UserError(f"{place} is {type(row).__name__}, not a mapping with named columns")
    if "prompt" not in row:
        known = [str(name) for name in row]
        raise UserError(
            f"{place} has no column 'prompt'.{suggest('prompt', known)} "
            f"Columns: {', '.join(known) or 'none'}"
        )
    prompt = row["prompt"]
    chat = isinstance(prompt, Sequence) and all(
        isinstance(each, Mapping) and {"role", "content"} <= set(each) for each in prompt
    )
    if not (isinstance(prompt, str) or (chat and prompt)):
        raise UserError(
            f"{place} has a prompt that is neither a text nor a list of messages with role and "
            f"content: {' '.join(repr(prompt).split())[:60]}"
        )


def no_tools(row: Mapping[str, Any]) -> Sequence[Tool]:
    """The tools of a row without an environment."""
    return ()


class Prompts(Sequence[Prompt]):
    """A task's rows as prompts, encoded on access."""

    def __init__(
        self,
        name: str,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        chat_template: ChatTemplate = "auto",
        tools: Callable[[Mapping[str, Any]], Sequence[Tool]] = no_tools,
    ) -> None:
        self.name = name
        self.rows = rows
        self.tools = tools
        """The tools that a row's prompt tells of."""
        self.encoder = Encoder(tokenizer, chat_template)
        self.longest = self.highest = 0
        """Tokens of the longest prompt, and the highest token id; 0 until `within` has counted."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.encoded(self.ids[index], self.rows[index])

    @cached_property
    def ids(self) -> list[str]:
        """Each prompt's id: hashes of the rows, so that they outlive a change of their order."""
        return row_ids(self.name, self.rows)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where the prompt of an id stands."""
        return {name: place for place, name in enumerate(self.ids)}

    def encoded(self, prompt_id: str, row: Mapping[str, Any]) -> Prompt:
        """A row as a prompt."""
        prompt = self.encoder.asked(row["prompt"])
        return Prompt(
            prompt_id=prompt_id,
            text_or_messages=prompt,
            ids=torch.tensor(self.encoder.encode(prompt, self.tools(row)), dtype=torch.int64),
            columns={k: v for k, v in row.items() if k != "prompt"},
        )

    def within(self, limit: int, overlong: str) -> Prompts:
        """These prompts without those of more than `limit` tokens, or a UserError for the first."""
        kept, longest, highest = [], 0, 0
        for index in range(len(self)):
            ids = self._checked(index)
            length = len(ids)
            if length == 0:
                raise UserError(f"problem {index} of the {self.name} set has an empty prompt")
            if length <= limit:
                kept.append(index)
                longest, highest = max(longest, length), max(highest, int(ids.max()))
            elif overlong == "error":
                raise UserError(
                    f"problem {index} of the {self.name} set has {length} prompt tokens, more than "
                    f"rollout.max_prompt_length={limit}; raise it or set task.overlong=drop"
                )
        if not kept:
            raise UserError(
                f"every problem of the {self.name} set is longer than "
                f"rollout.max_prompt_length={limit}"
            )
        within = self if len(kept) == len(self) else self._only(kept)
        within.longest, within.highest = longest, highest
        return within

    def description(self) -> list[str]:
        """In words what became of the prompts, with the first one as the model reads it."""
        encoder, lines = self.encoder, []
        if behind := encoder.added_behind:
            lines.append(
                f"The tokenizer's {encoder.shown(behind)} behind a text is left out of prompts."
            )
        if not encoder.has_template:
            return lines
        texts = [row["prompt"] for row in self.rows if isinstance(row["prompt"], str)]
        wrapped = sum(map(encoder.wraps, texts))
        counts = {
            "wrapped in the chat template": wrapped,
            "used as written (task.chat_template)": len(texts) - wrapped,
            "given as chats": len(self) - len(texts),
        }
        words = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return [*lines, f"Prompts: {words}. The first one: {encoder.shown(self[0].ids.tolist())}"]

    def _only(self, kept: Sequence[int]) -> Prompts:
        encoder, rows = self.encoder, [self.rows[i] for i in kept]
        return Prompts(self.name, rows, encoder.tokenizer, encoder.mode, self.tools)

    def _checked(self, index: int) -> torch.Tensor:
        try:
            return self[index].ids  # type: ignore[no-any-return]
        except UserError as error:
            raise UserError(f"problem {index} of the {self.name} set: {error}") from error


class Problems(Mapping[str, str | Messages]):
    """Prompts by their ids, as text or messages without their tokens."""

    def __init__(self, prompts: Prompts) -> None:
        self.prompts = prompts

    def __getitem__(self, prompt_id: str) -> str | Messages:
        row = self.prompts.rows[self.prompts.places[prompt_id]]
        return self.prompts.encoder.asked(row["prompt"])

    def __iter__(self) -> Iterator[str]:
        return iter(self.prompts.ids)

    def __len__(self) -> int:
        return len(self.prompts)
