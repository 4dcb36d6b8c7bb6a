"""The log-prob and entropy of each response token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlkit.batch import PolicyTerms

if (
    TYPE_CHECKING
):  # transformers takes seconds to import, which a wrong configuration need not wait for
    from transformers import PreTrainedModel


from rlkit.interfaces import Tokens
from rlkit.models.head import Head, Wanted
from rlkit.models.logits import EntropyMode


def autocast_to(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """The context for forwards: matrix products in this dtype; None = that of the weights."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def token_terms(
    model: PreTrainedModel,
    tokens: Tokens,
    temperature: float,
    entropy: EntropyMode,
    call: Callable[..., Any] | None = None,
    head: Head | None = None,
) -> PolicyTerms:
    """Log-prob and entropy (nats) of each response token [B, T] at a temperature.

    In float32; zeros where padded. `call` runs the model, if it is not called directly.
    """
    inputs = {name: value[:, :-1] for name, value in tokens.model_inputs(model.device).items()}
    length = tokens.response_ids.shape[1]
    real = torch.arange(length) < tokens.response_lengths[:, None]
    positions = real.flatten().nonzero().squeeze(1)
    wanted = Wanted(
        positions=positions,
        ids=tokens.response_ids.flatten()[positions],
        last=length,
        temperature=temperature,
        entropy=entropy,
    )
    terms = terms_at(model, inputs, wanted, call, head)
    into = positions.to(terms.logp.device)
    logp, spread = (
        each.new_zeros(real.numel()).index_copy(0, into, each).view(real.shape)
        for each in (terms.logp, terms.entropy)
    )
    return PolicyTerms(logp=logp, entropy=spread)


def terms_at(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    wanted: Wanted,
    call: Callable[..., Any] | None = None,
    head: Head | None = None,
) -> PolicyTerms:
    """Log-prob and entropy (nats) of tokens after positions of a forward: [n] float32 each.

    Full logits are made of the last positions of all rows if `head` is None. `inputs` are the
    model's, perhaps with `logits_to_keep`.
    """
    inputs = {"use_cache": False, "logits_to_keep": wanted.last, **inputs}
    if head is None:
        logits = (call or model)(**inputs).logits[:, -wanted.last :]
        return _of_logits(logits.float().flatten(0, 1), wanted)
    with head.computing(model, wanted) as box:
        output = (call or model)(**inputs)
    logp, spread = box.after(output.logits)
    return PolicyTerms(logp=logp.float(), entropy=spread.float())


def _of_logits(logits: Tensor, wanted: Wanted) -> PolicyTerms:
    """The terms, from logits [N, V] of all positions."""
    if wanted.temperature != 1.0:
        logits = logits / wanted.temperature
    positions, ids = wanted.positions.to(logits.device), wanted.ids.to(logits.device)
    normalizer = logits.logsumexp(-1)
    own = logits.flatten().index_select(0, positions * logits.shape[1] + ids)
    logp = own - normalizer.index_select(0, positions)
    if wanted.entropy == "none":
        return PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    with torch.set_grad_enabled(wanted.entropy == "gradient" and torch.is_grad_enabled()):
        spread = normalizer - ((logits - normalizer[:, None]).exp() * logits).sum(-1)
        return PolicyTerms(logp=logp, entropy=spread.index_select(0, positions))
