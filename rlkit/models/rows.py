"""How a batch's sequences are laid out for a model: padded to one length, or packed in one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from rlkit.interfaces import Tokens
from rlkit.models import shared_prefix
from rlkit.models.shared_prefix import PromptBlock, ResponseBlock, SharedPrefix

Layout = Literal["shared_prefix", "packed", "padded"]
"""One row that holds each prompt once; one row of whole sequences; a row for each sequence."""
LONGER = 2
"""A block of responses is split where the longest has more than this many times the tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRows:
    """What a model reads, and where it predicts the responses' tokens."""

    inputs: Mapping[str, Tensor]
    at: Tensor
    """[n] int64, the position that predicts each of the n response tokens, in [rows * length]."""
    ids: Tensor
    """[n] int64, the tokens."""
    places: Tensor
    """[n] int64, where each belongs in the flattened [B, T]."""
    shape: tuple[int, int]
    """B, T."""
    blocks: SharedPrefix | None = None
    """The row's blocks if responses share their prompts."""

    def spread(self, values: Tensor) -> Tensor:
        """[n] values in their places in [B, T]; zeros elsewhere."""
        flat = values.new_zeros(self.shape[0] * self.shape[1])
        return flat.index_put((self.places,), values).view(self.shape)

    def attention(self, model: nn.Module) -> AbstractContextManager[None]:
        """The context of the model's forward over these rows."""
        if self.blocks is None:
            return nullcontext()
        base = shared_prefix.base_of(model)
        assert base is not None, "the layout was chosen for another attention function"
        return shared_prefix.Use(model, base, self.blocks)()


def model_rows(tokens: Tokens, layout: Layout, device: torch.device) -> ModelRows:
    """The rows of a layout, on a device."""
    made = {"shared_prefix": shared, "packed": packed, "padded": padded}[layout](tokens)
    blocks = made.blocks
    if blocks is not None:
        moved = [_moved(block, device) for block in blocks.responses]
        blocks = SharedPrefix(blocks.prompts, moved)
    return replace(
        made,
        inputs={name: value.to(device) for name, value in made.inputs.items()},
        at=made.at.to(device),
        ids=made.ids.to(device),
        places=made.places.to(device),
        blocks=blocks,
    )


def computed(tokens: Tokens, layout: Layout) -> int:
    """Tokens a forward over a batch computes in a layout, those of padding included."""
    if layout == "padded":
        longest = int(tokens.prompt_lengths.max()), int(tokens.response_lengths.max())
        return len(tokens.prompt) * padded_width(*longest)
    rows = _first_rows(tokens.prompt) if layout == "shared_prefix" else slice(None)
    return int(tokens.prompt_lengths[rows].sum() + inputs_of(tokens).sum())


def padded_width(prompt: int, response: int) -> int:
    """Tokens computed of each padded row, by those of the longest prompt and response.

    The last token of a response predicts nothing.
    """
    return prompt + max(response, 1) - 1


def inputs_of(tokens: Tokens) -> Tensor:
    """[B] response tokens that precede another one."""
    return (tokens.response_lengths - 1).clamp(min=0)


def padded(tokens: Tokens) -> ModelRows:
    """A row for each sequence: prompts padded on the left, responses on the right."""
    cpu = torch.device("cpu")
    inputs = {name: value[:, :-1] for name, value in tokens.model_inputs(cpu).items()}
    length, prompt = inputs["input_ids"].shape[1], tokens.prompt_ids.shape[1]
    row, token = _real(tokens)
    return _rows_of(tokens, inputs, row * length + prompt - 1 + token)


def packed(tokens: Tokens) -> ModelRows:
    """One row of whole sequences; positions that begin again at 0 keep them apart."""
    lengths = tokens.prompt_lengths + inputs_of(tokens)
    mask = tokens.model_inputs(torch.device("cpu"))["attention_mask"][:, :-1].bool()
    ids = torch.cat([tokens.prompt_ids, tokens.response_ids], 1)[:, :-1]
    within = (
        torch.arange(mask.shape[1]) - (tokens.prompt_ids.shape[1] - tokens.prompt_lengths)[:, None]
    )
    kept = mask & (within < lengths[:, None])
    starts = lengths.cumsum(0) - lengths
    row, token = _real(tokens)
    inputs = {"input_ids": ids[kept][None], "position_ids": within[kept][None]}
    return _rows_of(tokens, inputs, (starts + tokens.prompt_lengths - 1)[row] + token)


def shared(tokens: Tokens) -> ModelRows:
    """One row that holds each distinct prompt once, then the responses, in blocks."""
    return _SharedRow(tokens).build()


class _SharedRow:
    """A packed row in the making."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens, self.lengths = tokens, inputs_of(tokens)
        self.ids: list[Tensor] = []
        self.positions: list[Tensor] = []
        self.end = 0
        """Tokens so far."""
        self.prompt_end = torch.zeros_like(self.lengths)
        """[B] where the last token of each row's prompt is."""
        self.response_start = torch.zeros_like(self.lengths)

    def build(self) -> ModelRows:
        """The prompts by length, then the responses to each length's."""
        lengths = self.tokens.prompt_lengths.tolist()
        first = sorted(_first_rows(self.tokens.prompt), key=lambda row: -lengths[row])
        prompts = [self._prompts(rows) for rows in _runs(first, lengths.__getitem__)]
        responses = [
            self._responses(rows, number, block)
            for number, block in enumerate(prompts)
            for rows in self._answers(block)
        ]
        row, token = _real(self.tokens)
        before = self.response_start[row] + token - 1
        at = torch.where(token == 0, self.prompt_end[row], before)
        inputs = {
            "input_ids": torch.cat(self.ids)[None],
            "position_ids": torch.cat(self.positions)[None],
        }
        return replace(_rows_of(self.tokens, inputs, at), blocks=SharedPrefix(prompts, responses))

    def _prompts(self, rows: list[int]) -> PromptBlock:
        """Add the prompts of these rows, which have one length."""
        tokens = self.tokens
        length = int(tokens.prompt_lengths[rows[0]])
        block = PromptBlock(self.end, len(rows), length)
        for place, row in enumerate(rows, start=1):
            self.prompt_end[tokens.prompt == tokens.prompt[row]] = self.end + place * length - 1
        self.ids.append(tokens.prompt_ids[rows, -length:].flatten())
        self.positions.append(torch.arange(length).repeat(len(rows)))
        self.end = block.stop
        return block

    def _answers(self, block: PromptBlock) -> Iterator[Tensor]:
        """The rows that answer a block's prompts, the longest first, split by their lengths."""
        inside = (self.prompt_end >= block.start) & (self.prompt_end < block.stop)
        rows = (inside & (self.lengths > 0)).nonzero().squeeze(-1)
        rows = rows[torch.argsort(self.lengths[rows], descending=True, stable=True)]
        while len(rows):
            alike = self.lengths[rows] * LONGER >= self.lengths[rows[0]]
            yield rows[alike]
            rows = rows[~alike]

    def _responses(self, rows: Tensor, number: int, prompts: PromptBlock) -> ResponseBlock:
        """Add the responses of these rows, the longest first."""
        lengths = self.lengths[rows]
        width, starts = int(lengths[0]), lengths.cumsum(0) - lengths
        real = torch.arange(width) < lengths[:, None]
        within = torch.arange(width).expand_as(real)
        even = bool(real.all())
        block = ResponseBlock(
            start=self.end,
            stop=self.end + int(lengths.sum()),
            prompts=number,
            prompt=(self.prompt_end[rows] - prompts.start) // prompts.length,
            width=width,
            padded=None if even else (starts[:, None] + within * real).flatten(),
            packed=None if even else real.flatten().nonzero().squeeze(-1),
        )
        self.response_start[rows] = self.end + starts
        self.ids.append(self.tokens.response_ids[rows, :width][real])
        self.positions.append(prompts.length + within[real])
        self.end = block.stop
        return block


def _first_rows(prompt: Tensor) -> list[int]:
    """The first row of each distinct prompt."""
    found: dict[int, int] = {}
    for row, number in enumerate(prompt.tolist()):
        found.setdefault(number, row)
    return list(found.values())


def _runs(rows: list[int], key: Callable[[int], int]) -> Iterator[list[int]]:
    """Neighbors with the same key."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or key(rows[end]) != key(rows[start]):
            yield rows[start:end]
            start = end


def _real(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Row and place [n] of every response token, row by row."""
    real = torch.arange(tokens.response_ids.shape[1]) < tokens.response_lengths[:, None]
    row, token = real.nonzero(as_tuple=True)
    return row, token


def _rows_of(tokens: Tokens, inputs: Mapping[str, Tensor], at: Tensor) -> ModelRows:
    count, length = tokens.response_ids.shape
    row, token = _real(tokens)
    return ModelRows(
        inputs=inputs,
        at=at,
        ids=tokens.response_ids[row, token],
        places=row * length + token,
        shape=(count, length),
    )


def _moved(block: ResponseBlock, device: torch.device) -> ResponseBlock:
    def to(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(device)

    return replace(
        block,
        prompt=block.prompt.to(device),
        padded=to(block.padded),
        packed=to(block.packed),
    )
