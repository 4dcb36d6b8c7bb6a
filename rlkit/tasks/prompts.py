"""Prompts in a stateless order: what comes when depends only on the seed and a position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from rlkit.batch import Messages, Prompt
from rlkit.errors import UserError, suggest
from rlkit.interfaces import State
from rlkit.ops import stream_rng

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


class Prompts(Sequence[Prompt]):
    """A task's rows as prompts, encoded on access.

    A text prompt becomes a user message if the tokenizer has a chat template.
    """

    def __init__(
        self, name: str, rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.name = name
        self.rows = rows
        self.tokenizer = tokenizer
        self.chat = tokenizer.chat_template is not None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.encoded(f"{self.name}-{index}", self.rows[index])

    def encoded(self, prompt_id: str, row: Mapping[str, Any]) -> Prompt:
        """A row as a prompt."""
        prompt: str | Messages = row["prompt"]
        if isinstance(prompt, str) and self.chat:
            prompt = [{"role": "user", "content": prompt}]
        return Prompt(
            prompt_id=prompt_id,
            text_or_messages=prompt,
            ids=torch.tensor(self.encode(prompt), dtype=torch.int64),
            columns={k: v for k, v in row.items() if k != "prompt"},
        )

    def encode(self, prompt: str | Messages) -> list[int]:
        """Token ids of a prompt, with the tokenizer's own special tokens."""
        if isinstance(prompt, str):
            ids: list[int] = self.tokenizer(prompt)["input_ids"]
            return ids
        if not self.chat:
            raise UserError(
                "the prompts are chat messages, but this model's tokenizer has no chat template; "
                "use a chat model or a task with text prompts"
            )
        text = self.tokenizer.apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def within(self, limit: int, overlong: str) -> Prompts:
        """These prompts without those of more than `limit` tokens, or a UserError for the first."""
        kept = []
        for index in range(len(self)):
            length = len(self[index].ids)
            if length == 0:
                raise UserError(f"problem {index} of the {self.name} set has an empty prompt")
            if length <= limit:
                kept.append(index)
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
        if len(kept) == len(self):
            return self
        return Prompts(self.name, [self.rows[i] for i in kept], self.tokenizer)


class PromptStream:
    """The training prompts, each epoch in an order of its own. A buffer's `plan` takes from it."""

    def __init__(
        self, prompts: Prompts, seed: int, num_generations: int, max_completion_length: int
    ) -> None:
        self.prompts = prompts
        self.seed = seed
        self.num_generations = num_generations
        self.max_completion_length = max_completion_length
        self.position = 0
        self._epoch = -1
        self._order: list[int] = []

    def take(self, n: int) -> list[Prompt]:
        """The next n prompts."""
        taken = []
        for _ in range(n):
            epoch, offset = divmod(self.position, len(self.prompts))
            if epoch != self._epoch:
                self._order = (
                    stream_rng(self.seed, "data", epoch).permutation(len(self.prompts)).tolist()
                )
                self._epoch = epoch
            taken.append(self.prompts[self._order[offset]])
            self.position += 1
        return taken

    def get(self, prompt_id: str) -> Prompt:
        """A prompt by its id. Raises KeyError if it is not in this set."""
        name, _, index = prompt_id.rpartition("-")
        if name != self.prompts.name or not index.isdigit() or int(index) >= len(self.prompts):
            raise KeyError(prompt_id)
        prompt: Prompt = self.prompts[int(index)]
        return prompt

    def prompt(self, prompt_id: str, row: Mapping[str, Any]) -> Prompt:
        """A row encoded as the task's own are."""
        return self.prompts.encoded(prompt_id, row)

    def response(self, text: str) -> torch.Tensor:
        """The token ids of a text, with the end-of-sequence token."""
        tokenizer = self.prompts.tokenizer
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor([*ids, tokenizer.eos_token_id], dtype=torch.int64)

    def state_dict(self) -> State:
        """The position in the stream."""
        return {"position": self.position}

    def load_state_dict(self, state: State) -> None:
        """Continue from a saved position."""
        self.position = state["position"]
