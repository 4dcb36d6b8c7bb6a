"""Sequences as a model reads them, and the log-prob and entropy of each response token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from rlkit.batch import PolicyTerms, pad

if (
    TYPE_CHECKING
):  # transformers takes seconds to import, which a wrong configuration need not wait for
    from transformers import PreTrainedModel


EntropyMode = Literal["none", "value", "gradient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Sequences as a model reads them: left-padded prompts and right-padded responses."""

    prompt_ids: Tensor
    """[B, P] int64, left-padded"""
    prompt_lengths: Tensor
    """[B] int64"""
    response_ids: Tensor
    """[B, T] int64, right-padded"""
    response_lengths: Tensor
    """[B] int64"""

    @staticmethod
    def of(prompts: list[Tensor], responses: list[Tensor]) -> Tokens:
        """Pad lists of [P_i] and [T_i] ids.

        Pad positions hold id 0 and are masked wherever they are read.
        """
        longest = max(p.shape[0] for p in prompts)
        flipped = pad([p.flip(0) for p in prompts], longest, 0)
        return Tokens(
            prompt_ids=flipped.flip(1),
            prompt_lengths=torch.tensor([p.shape[0] for p in prompts]),
            response_ids=pad(responses, max(1, *(r.shape[0] for r in responses)), 0),
            response_lengths=torch.tensor([r.shape[0] for r in responses]),
        )

    @property
    def lengths(self) -> Tensor:
        """[B] prompt plus response tokens."""
        return self.prompt_lengths + self.response_lengths

    def rows(self, index: Tensor) -> Tokens:
        """The sequences at `index`, trimmed to their longest prompt and response."""
        prompt_lengths, response_lengths = self.prompt_lengths[index], self.response_lengths[index]
        prompt, response = int(prompt_lengths.max()), max(1, int(response_lengths.max()))
        return Tokens(
            prompt_ids=self.prompt_ids[index][:, self.prompt_ids.shape[1] - prompt :],
            prompt_lengths=prompt_lengths,
            response_ids=self.response_ids[index][:, :response],
            response_lengths=response_lengths,
        )

    def model_inputs(self, device: torch.device) -> dict[str, Tensor]:
        """input_ids, attention_mask and position_ids [B, P + T], on the device."""
        prompt = (
            torch.arange(self.prompt_ids.shape[1])
            >= self.prompt_ids.shape[1] - self.prompt_lengths[:, None]
        )
        response = torch.arange(self.response_ids.shape[1]) < self.response_lengths[:, None]
        mask = torch.cat([prompt, response], 1).long()
        return {
            "input_ids": torch.cat([self.prompt_ids, self.response_ids], 1).to(device),
            "attention_mask": mask.to(device),
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0).to(device),
        }


def computing_in(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """Around forwards: matrix products in this type; None = in the weights' own."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def token_terms(
    model: PreTrainedModel,
    tokens: Tokens,
    temperature: float,
    entropy: EntropyMode,
    call: Callable[..., Any] | None = None,
    autocast: torch.dtype | None = None,
) -> PolicyTerms:
    """Log-prob and entropy (nats) of each response token [B, T] at a temperature.

    In float32; zeros where padded. `call` is what runs the model, if not itself.
    """
    inputs = {name: value[:, :-1] for name, value in tokens.model_inputs(model.device).items()}
    length = tokens.response_ids.shape[1]
    with computing_in(autocast, model.device):
        output = (call or model)(**inputs, use_cache=False, logits_to_keep=length)
    logits = output.logits[:, -length:].float()
    if temperature != 1.0:
        logits = logits / temperature
    ids = tokens.response_ids.to(logits.device)
    real = (
        torch.arange(length, device=logits.device)
        < tokens.response_lengths.to(logits.device)[:, None]
    )
    normaliser = logits.logsumexp(-1)
    logp = logits.gather(-1, ids[..., None]).squeeze(-1) - normaliser
    spread = torch.zeros_like(logp)
    if entropy != "none":
        with torch.set_grad_enabled(entropy == "gradient" and torch.is_grad_enabled()):
            spread = normaliser - ((logits - normaliser[..., None]).exp() * logits).sum(-1)
    return PolicyTerms(logp=torch.where(real, logp, 0.0), entropy=torch.where(real, spread, 0.0))
