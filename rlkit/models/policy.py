"""A causal language model that gives token log-probs, and frozen copies of it."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlkit.batch import PolicyTerms
from rlkit.distributed.processes import SINGLE, Processes, named_weights
from rlkit.interfaces import State
from rlkit.models.host_copy import copy_to, visit
from rlkit.models.lora import (
    adapter_weights,
    has_adapter,
    is_off,
    parameters,
    plain_model,
    with_adapter,
)

if (
    TYPE_CHECKING
):  # transformers takes seconds to import, which a wrong configuration need not wait for
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


from rlkit.interfaces import Tokens
from rlkit.models.dropout import NO_DROPOUT, Dropout
from rlkit.models.head import Head
from rlkit.models.logits import EntropyMode
from rlkit.models.rows import Layout
from rlkit.models.tokens import Reading, autocast_to, token_terms


class FrozenPolicy:
    """A policy that no longer learns: an anchor's reference."""

    def __init__(self, model: PreTrainedModel, policy: Policy) -> None:
        self.model = model.requires_grad_(False).train(False)
        self.reading, self.device = policy.reading, policy.device
        if model.device != self.device:
            visit(model, self.device)

    @property
    def layout(self) -> Layout:
        """How it lays out sequences."""
        return self.reading.layout

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """Log-prob of each response token: [B, T] float32."""
        return self._terms(tokens).logp

    def _terms(self, tokens: Tokens) -> PolicyTerms:
        return token_terms(self.model, tokens, self.reading)

    def state_dict(self) -> State:
        """Its weights by name: the tensors themselves."""
        return dict(self.model.state_dict())

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take other weights in place, one tensor after the other."""
        own = self.state_dict()
        for name, tensor in weights:
            own[name].copy_(tensor)
            del tensor  # it is not held while the next one is computed


class FrozenAdapter(FrozenPolicy):
    """The policy's model with other adapters: no second copy of the model.

    Adapters that add nothing, as at the beginning of a run, are switched off.
    """

    def __init__(self, policy: Policy, weights: State) -> None:
        self.model, self.weights = policy.model, weights
        self.reading, self.device = policy.reading, policy.device
        self.off = is_off(weights)

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """Log-prob of each response token: [B, T] float32."""
        with with_adapter(self.model, None if self.off else self.weights):
            return self._terms(tokens).logp

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take other weights in place, one tensor after the other."""
        super().load(weights)
        self.off = is_off(self.weights)

    def state_dict(self) -> State:
        """The adapters' weights by name: the tensors themselves."""
        return dict(self.weights)


class Policy:
    """The model that learns, with its tokenizer."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        temperature: float,
        *,
        autocast: torch.dtype | None = None,
        dropout: Dropout = NO_DROPOUT,
        processes: Processes = SINGLE,
    ) -> None:
        self.model, self.tokenizer, self.temperature = model, tokenizer, temperature
        self.autocast = autocast
        """The dtype of matrix products, if not that of the weights."""
        self.dropout = dropout
        """What drops in updates."""
        self.head: Head | None = None
        """What computes log-probs without full logits, also those of frozen copies."""
        self.copies_on: torch.device | None = None
        """Where frozen copies are kept; None = on the policy's own device."""
        self.layout: Layout = "padded"
        """How sequences are laid out in forwards; see `rlkit.models.rows`."""
        self.processes = processes
        self.wrapped = processes.wrap(model)
        """The module a `Learner` calls for gradients."""

    def at(self, temperature: float, copies_on: str | None = None) -> Policy:
        """The same policy, its log-probs at another temperature, its copies on another device."""
        other = copy.copy(self)
        other.temperature = temperature
        other.copies_on = torch.device(copies_on) if copies_on is not None else None
        return other

    @property
    def reading(self) -> Reading:
        """How its log-probs are read."""
        return Reading(
            temperature=self.temperature,
            device=self.device,
            autocast=self.autocast,
            layout=self.layout,
            head=self.head,
        )

    @property
    def batch_invariant(self) -> bool:
        """Whether a forward gives the same result in another batch, up to float32 rounding."""
        return self.model.dtype == torch.float32 and self.autocast is None and not self.uses_tf32

    @property
    def uses_tf32(self) -> bool:
        """Whether the factors of float32 products are rounded to TF32."""
        return self.device.type == "cuda" and bool(torch.backends.cuda.matmul.allow_tf32)

    def autocasting(self) -> torch.autocast:
        """The context for forwards of the model."""
        return autocast_to(self.autocast, self.device)

    @contextmanager
    def full_weights(self) -> Generator[None]:
        """Gathers full weights on every rank inside this context."""
        with self.processes.full_weights(self.model):
            yield

    def weights(self, *, keep: bool = True) -> State:
        """The full weights by name; copies if they are sharded.

        Every rank must call it; those with `keep=False` get none.
        """
        if not self.processes.shards_weights:
            return dict(self.model.state_dict())
        with self.full_weights():
            full = named_weights(self.model).items() if keep else ()
            return {name: tensor.cpu().clone() for name, tensor in full}

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.device

    def terms(
        self,
        tokens: Tokens,
        entropy: EntropyMode = "none",
        through: nn.Module | None = None,
        masks: int | None = None,
        module: nn.Module | None = None,
    ) -> PolicyTerms:
        """Log-probs and entropies of the response tokens, [B, T], and the head's values.

        Differentiable; for gradients, `through` is the module the learner calls in place of the
        model. `module` is the loss's own, which reads the prompts' hidden states. The gradient is
        taken with dropout, if `masks`, the seed of its masks, is given and the run asks for
        dropout; the values never are.
        """

        def forward() -> PolicyTerms:
            return token_terms(self.model, tokens, self.reading, entropy, through, module)

        return forward() if masks is None else self.dropout.terms(forward, masks, self.device)

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """[B, T] float32, without gradient."""
        return self.terms(tokens).logp

    def state_dict(self) -> State:
        """The weights that `freeze` copies, by name: its own tensors, or gathered ones.

        Every rank must call it.
        """
        if has_adapter(self.model):
            return {name: p.detach() for name, p in parameters(self.model).items()}
        return self.weights()

    def freeze(self) -> FrozenPolicy:
        """A frozen copy of the policy as it is now; with LoRA, a copy of the adapters alone."""
        home = self.copies_on or self.device
        if has_adapter(self.model):
            return self.restore(adapter_weights(self.model))
        if self.processes.shards_weights:
            model = plain_model(self.model, self.weights())
            torch.nn.Module.to(model, home)
        elif home != self.device:
            model = copy_to(self.model, home)
        else:
            model = copy.deepcopy(self.model)
        return FrozenPolicy(model, self)

    def restore(self, state: State) -> FrozenPolicy:
        """A frozen policy with the given weights."""
        if has_adapter(self.model):
            home = self.copies_on or self.device
            return FrozenAdapter(self, {n: t.to(home, copy=True) for n, t in state.items()})
        frozen = self.freeze()
        frozen.model.load_state_dict(state)
        return frozen
