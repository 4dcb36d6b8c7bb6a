"""A small adapter before a model's output layer, and the hidden states that it changes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.interfaces import Tokens
from rlkit.models.head import Head, forward_of, projection
from rlkit.models.logprob import chunked_terms
from rlkit.models.policy import Policy


class OutputAdapter:
    """h + B A h in place of the hidden state h [.., H] that the output layer reads.

    A [r, H] is given, B [H, r] begins at zero, so the adapter changes nothing at first. Both are
    float32.
    """

    def __init__(self, a: Tensor) -> None:
        self.a = a.float().requires_grad_(True)
        self.b = torch.zeros(a.shape[1], a.shape[0], device=a.device, requires_grad=True)

    @property
    def parameters(self) -> list[Tensor]:
        """What is learned."""
        return [self.a, self.b]

    def __call__(self, hidden: Tensor) -> Tensor:
        """The changed hidden states, in their own dtype."""
        change = hidden.to(self.a.dtype) @ self.a.t() @ self.b.t()
        return hidden + change.to(hidden.dtype)

    @contextmanager
    def on(self, model: Any) -> Generator[None]:
        """Every forward of the model is that of the adapted model inside this context."""
        layer = model.get_output_embeddings()
        hook = layer.register_forward_pre_hook(lambda _, args: (self(args[0]), *args[1:]))
        try:
            yield
        finally:
            hook.remove()

    def logp(self, model: Any, head: Head, states: States, temperature: float) -> Tensor:
        """Log-probs [N] of the tokens under the adapted model; differentiable in the adapter."""
        hidden = self(states.hidden)
        layer = projection(model.get_output_embeddings(), hidden, head)
        fixed = replace(
            layer,
            weight=layer.weight.detach(),
            bias=None if layer.bias is None else layer.bias.detach(),
        )
        return chunked_terms(hidden, states.ids, fixed, temperature)[0]


class States:
    """The hidden states [N, H] before the output layer at some tokens, and these [N] int64."""

    def __init__(self, hidden: Tensor, ids: Tensor) -> None:
        self.hidden, self.ids = hidden, ids

    @staticmethod
    def join(parts: list[States]) -> States:
        """One after the other."""
        return States(torch.cat([p.hidden for p in parts]), torch.cat([p.ids for p in parts]))

    @staticmethod
    @torch.no_grad()
    def of(policy: Policy, tokens: Tokens) -> States:
        """The states from which the policy's model predicts each response token, in one forward."""
        seen: list[Tensor] = []
        width = tokens.response_ids.shape[1]

        def forward(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            seen.append(hidden[:, -width - 1 : -1])
            return hidden.new_zeros(*hidden.shape[:-1], 1)

        model: Any = policy.model
        with forward_of(model.get_output_embeddings(), forward), policy.autocasting():
            model(**tokens.model_inputs(policy.device), use_cache=False, logits_to_keep=width + 1)
        (hidden,) = seen
        mask = torch.arange(width) < tokens.response_lengths[:, None]
        places = mask.flatten().nonzero().squeeze(-1).to(policy.device)
        ids = tokens.response_ids[mask].to(policy.device)
        return States(hidden.flatten(0, 1).index_select(0, places), ids)
