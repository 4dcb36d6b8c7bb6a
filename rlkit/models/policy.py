"""A causal language model that gives token log-probs, and frozen copies of it."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlkit.batch import PolicyTerms
from rlkit.distributed.processes import ALONE, Processes, weights_of
from rlkit.interfaces import State
from rlkit.models.lora import (
    adapter_weights,
    has_adapter,
    is_off,
    plain_model,
    with_adapter,
)

if (
    TYPE_CHECKING
):  # transformers takes seconds to import, which a wrong configuration need not wait for
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


from rlkit.models.tokens import EntropyMode, Tokens, computing_in, token_terms


class FrozenPolicy:
    """A policy that no longer learns: an anchor's reference."""

    autocast: torch.dtype | None = None
    """That of the policy it was."""

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        self.model = model
        model.requires_grad_(False).train(False)
        self.temperature = temperature

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """Log-prob of each response token: [B, T] float32."""
        return self._terms(tokens).logp

    def _terms(self, tokens: Tokens) -> PolicyTerms:
        return token_terms(self.model, tokens, self.temperature, "none", autocast=self.autocast)

    def state_dict(self) -> State:
        """Its weights by name."""
        return dict(self.model.state_dict())


class FrozenAdapter(FrozenPolicy):
    """The policy's model with adapters of its own: no second copy of the model.

    Adapters that add nothing, as at the beginning of a run, are switched off.
    """

    def __init__(self, model: PreTrainedModel, temperature: float, weights: State) -> None:
        self.model, self.temperature, self.weights = model, temperature, weights

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """Log-prob of each response token: [B, T] float32."""
        with with_adapter(self.model, None if is_off(self.weights) else self.weights):
            return self._terms(tokens).logp

    def state_dict(self) -> State:
        """The adapters' weights by name."""
        return dict(self.weights)


class Policy:
    """The model that learns, with its tokenizer."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, temperature: float
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.trained: nn.Module = model
        """What runs the model where gradients are wanted."""
        self.processes = ALONE
        self.autocast: torch.dtype | None = None
        """The type of matrix products, if not the weights' own."""

    @property
    def exact(self) -> bool:
        """Whether a forward gives the same in another batch, up to the rounding of float32."""
        return self.model.dtype == torch.float32 and self.autocast is None

    def computing(self) -> torch.autocast:
        """Around forwards of its model."""
        return computing_in(self.autocast, self.device)

    def share(self, processes: Processes) -> None:
        """Learn with other processes; called once."""
        self.processes = processes
        self.trained = processes.wrap(self.model)

    @contextmanager
    def whole(self) -> Generator[None]:
        """While it lasts, this process has all weights and may run the model on its own."""
        with self.processes.whole(self.model):
            yield

    def weights(self, *, kept: bool = True) -> State:
        """The weights by name, in one piece; copies where they are divided over processes.

        All processes take part; those that do not keep them get none.
        """
        if not self.processes.divides_weights:
            return dict(self.model.state_dict())
        with self.whole():
            whole = weights_of(self.model).items() if kept else ()
            return {name: tensor.cpu().clone() for name, tensor in whole}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def terms(self, tokens: Tokens, entropy: EntropyMode = "none") -> PolicyTerms:
        """Differentiable log-probs and entropies of the response tokens, [B, T]."""
        call = self.trained if torch.is_grad_enabled() else self.model
        return token_terms(self.model, tokens, self.temperature, entropy, call, self.autocast)

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """[B, T] float32, without gradient."""
        return self.terms(tokens).logp

    def freeze(self) -> FrozenPolicy:
        """A frozen copy of the policy as it is now; of a policy with adapters, the adapters'."""
        frozen = self._frozen()
        frozen.autocast = self.autocast
        return frozen

    def _frozen(self) -> FrozenPolicy:
        if has_adapter(self.model):
            return FrozenAdapter(self.model, self.temperature, adapter_weights(self.model))
        if self.processes.divides_weights:
            plain = plain_model(self.model, self.weights())
            torch.nn.Module.to(plain, self.device)
            return FrozenPolicy(plain, self.temperature)
        return FrozenPolicy(copy.deepcopy(self.model), self.temperature)

    def restore(self, state: State) -> FrozenPolicy:
        """A frozen policy with the given weights."""
        if has_adapter(self.model):
            frozen: FrozenPolicy = FrozenAdapter(self.model, self.temperature, state)
            frozen.autocast = self.autocast
            return frozen
        frozen = self.freeze()
        frozen.model.load_state_dict(state)
        return frozen
