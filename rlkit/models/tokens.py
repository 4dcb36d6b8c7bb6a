"""The log-prob and entropy of each response token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch

from rlkit.batch import PolicyTerms

if (
    TYPE_CHECKING
):  # transformers takes seconds to import, which a wrong configuration need not wait for
    from transformers import PreTrainedModel


from rlkit.interfaces import Tokens

EntropyMode = Literal["none", "value", "gradient"]


def autocast_to(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """The context for forwards: matrix products in this dtype; None = that of the weights."""
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

    In float32; zeros where padded. `call` runs the model, if it is not called directly.
    """
    inputs = {name: value[:, :-1] for name, value in tokens.model_inputs(model.device).items()}
    length = tokens.response_ids.shape[1]
    with autocast_to(autocast, model.device):
        output = (call or model)(**inputs, use_cache=False, logits_to_keep=length)
    logits = output.logits[:, -length:].float()
    if temperature != 1.0:
        logits = logits / temperature
    ids = tokens.response_ids.to(logits.device)
    real = (
        torch.arange(length, device=logits.device)
        < tokens.response_lengths.to(logits.device)[:, None]
    )
    normalizer = logits.logsumexp(-1)
    logp = logits.gather(-1, ids[..., None]).squeeze(-1) - normalizer
    spread = torch.zeros_like(logp)
    if entropy != "none":
        with torch.set_grad_enabled(entropy == "gradient" and torch.is_grad_enabled()):
            spread = normalizer - ((logits - normalizer[..., None]).exp() * logits).sum(-1)
    return PolicyTerms(logp=torch.where(real, logp, 0.0), entropy=torch.where(real, spread, 0.0))
