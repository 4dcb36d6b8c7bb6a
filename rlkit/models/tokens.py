"""The log-prob and entropy of each response token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from rlkit.batch import PolicyTerms

if (
    TYPE_CHECKING
):  # transformers takes seconds to import, which a wrong configuration need not wait for
    from transformers import PreTrainedModel


from rlkit.interfaces import Tokens
from rlkit.models.rows import Layout, model_rows

EntropyMode = Literal["none", "value", "gradient"]


def autocast_to(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """The context for forwards: matrix products in this dtype; None = that of the weights."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a model's log-probs are read."""

    temperature: float
    autocast: torch.dtype | None = None
    """The dtype of matrix products; None = that of the weights."""
    layout: Layout = "padded"


def token_terms(
    model: PreTrainedModel,
    tokens: Tokens,
    reading: Reading,
    entropy: EntropyMode = "none",
    call: Callable[..., Any] | None = None,
) -> PolicyTerms:
    """Log-prob and entropy (nats) of each response token [B, T] at a temperature.

    In float32; zeros where padded. `call` runs the model, if it is not called directly.
    """
    rows = model_rows(tokens, reading.layout, model.device)
    length = tokens.response_ids.shape[1]
    padded = reading.layout == "padded"
    with rows.attention(model), autocast_to(reading.autocast, model.device):
        keep = length if padded else rows.at
        output = (call or model)(**rows.inputs, use_cache=False, logits_to_keep=keep)
    logits = output.logits[:, -length:].flatten(0, 1)[rows.places] if padded else output.logits[0]
    logits = logits.float()
    if reading.temperature != 1.0:
        logits = logits / reading.temperature
    normalizer = logits.logsumexp(-1)
    logp = logits.gather(-1, rows.ids[:, None]).squeeze(-1) - normalizer
    spread = torch.zeros_like(logp)
    if entropy != "none":
        with torch.set_grad_enabled(entropy == "gradient" and torch.is_grad_enabled()):
            spread = normalizer - ((logits - normalizer[:, None]).exp() * logits).sum(-1)
    return PolicyTerms(logp=rows.spread(logp), entropy=rows.spread(spread))
