"""Forwards of one token per response, after one forward over the prompts."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from rlkit.rollout.states import Carried


class Decoder(Protocol):
    """What a batch that generates asks of the model's states."""

    def running(self) -> AbstractContextManager[None]:
        """The context of its steps."""
        ...

    def leave(self, live: int, rows: int) -> bool:
        """Whether finished rows leave now, if `live` of `rows` go on."""
        ...

    def keep(self, chosen: Tensor) -> None:
        """Keep the rows at `chosen` [b'], ascending, on the CPU."""
        ...

    def step(self, token: Tensor) -> Tensor:
        """Logits [b, V] after the next token [b] of each row."""
        ...


class CarriedDecoder:
    """With the model's own cache, repeated for the responses of each prompt."""

    def __init__(self, model: Any, output: Any, request: Tensor, mask: Tensor) -> None:
        """From the output of the prompts' forward with mask [R, P]; responses to request [b]."""
        index = request.to(mask.device)
        self.model = model
        self.carried = Carried.of(model, output, len(mask)).select(index)
        self.mask = mask[index]

    def running(self) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def leave(self, live: int, rows: int) -> bool:
        """Once they are half: the whole cache is copied."""
        return 2 * live <= rows

    def keep(self, chosen: Tensor) -> None:
        """Keep these rows."""
        index = chosen.to(self.mask.device)
        self.carried, self.mask = self.carried.select(index), self.mask[index]

    def step(self, token: Tensor) -> Tensor:
        """Logits [b, V] after the next token [b] of each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(token), 1)], 1)
        output = self.model(input_ids=token[:, None], **self.carried.inputs(self.mask))
        self.carried = Carried.of(self.model, output, len(token))
        logits: Tensor = output.logits[:, -1]
        return logits


class SharedDecoder:
    """With each prompt's keys and values once, and room for those of the responses."""

    def __init__(self, model: Any, output: Any, request: Tensor, mask: Tensor, room: int) -> None:
        """From the output of the prompts' forward with mask [R, P]; responses to request [b].

        They have at most `room` tokens. Raises NotShareable if the model is of another kind.
        """
        # imports transformers, which a configuration need not wait for
        from rlkit.rollout.shared_prompts import SharedPrompts

        self.model = model
        cache = output.get("past_key_values")
        self.cache = SharedPrompts(cache, request, mask, room, mask.device)
        self.position = mask.sum(1)[request.to(mask.device)]

    def running(self) -> AbstractContextManager[None]:
        """The model's attention is over the shared prompts."""
        from rlkit.rollout.shared_prompts import attending

        return attending(self.model, self.cache)

    def leave(self, live: int, rows: int) -> bool:
        """At once: nothing is copied for it."""
        return live < rows

    def keep(self, chosen: Tensor) -> None:
        """Keep these rows."""
        self.cache.keep(chosen)
        self.position = self.position[chosen.to(self.position.device)]

    def step(self, token: Tensor) -> Tensor:
        """Logits [b, V] after the next token [b] of each row."""
        output = self.model(
            input_ids=token[:, None],
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.position = self.position + 1
        logits: Tensor = output.logits[:, -1]
        return logits
