"""What a loss's own module makes of prompts: a number from the policy's hidden states of each."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlkit.interfaces import Tokens
from rlkit.models.lora import has_adapter
from rlkit.models.rows import ModelRows


def width_of(model: Any) -> int:
    """The length of a model's hidden states."""
    width: int = model.config.get_text_config().hidden_size
    return width


@contextmanager
def last_states(model: Any, *, wanted: bool = True) -> Generator[list[Tensor]]:
    """Collects what the output layer reads, at every position [rows, L, H], of each forward.

    Nothing if it is not wanted.
    """
    found: list[Tensor] = []
    if not wanted:
        yield found
        return

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(output.last_hidden_state)

    whole = model.get_base_model() if has_adapter(model) else model
    hook = whole.base_model.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


def answered_prompts(tokens: Tokens) -> tuple[list[int], list[int]]:
    """The first row with a response of each prompt, and which of these rows has each row's prompt.

    One past the last of these for a row without a response.
    """
    places: dict[int, int] = {}
    rows: list[int] = []
    numbers = tokens.prompt.tolist()
    for row, length in enumerate(tokens.response_lengths.tolist()):
        if length > 0 and numbers[row] not in places:
            places[numbers[row]] = len(rows)
            rows.append(row)
    return rows, [
        places[number] if length > 0 else len(rows)
        for number, length in zip(numbers, tokens.response_lengths.tolist(), strict=True)
    ]


def prompt_means(states: Tensor, rows: ModelRows, tokens: Tokens, chosen: list[int]) -> Tensor:
    """The mean state over the prompt's tokens, [n, H] float32, of the `chosen` rows.

    In every layout the tokens of a prompt stand in a row and end where the first token of the
    response is predicted.
    """
    device, lengths = states.device, tokens.prompt_lengths[chosen]
    first = (tokens.response_lengths.cumsum(0) - tokens.response_lengths)[chosen]
    back = torch.arange(int(lengths.max()))
    real = (back < lengths[:, None]).to(device)[..., None]
    ends = rows.at.index_select(0, first.to(device))
    positions = (ends[:, None] - back.to(device)).clamp(min=0)
    read = states.flatten(0, 1).index_select(0, positions.flatten())
    read = read.view(*positions.shape, -1).float()  # [n, P, H]
    return torch.where(real, read, 0.0).sum(1) / lengths.to(device)[:, None]


def prompt_values(module: nn.Module, states: Tensor, rows: ModelRows, tokens: Tokens) -> Tensor:
    """What the module makes of each row's prompt, [B] float32; once for each distinct prompt.

    0 for a row without a response, whatever other rows there are.
    """
    chosen, which = answered_prompts(tokens)
    if not chosen:
        return torch.zeros(len(which), device=states.device)
    values: Tensor = module(prompt_means(states, rows, tokens, chosen)).squeeze(-1)  # [n]
    values = torch.cat([values, values.new_zeros(1)])
    return values.index_select(0, torch.tensor(which).to(states.device))
