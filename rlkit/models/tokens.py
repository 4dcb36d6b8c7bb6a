"""The log-prob and entropy of each response token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlkit.batch import PolicyTerms

if (
    TYPE_CHECKING
):  # transformers takes seconds to import, which a wrong configuration need not wait for
    from transformers import PreTrainedModel


from rlkit.interfaces import Tokens
from rlkit.models.head import Head, Wanted
from rlkit.models.logits import EntropyMode
from rlkit.models.prompt_head import last_states, prompt_values
from rlkit.models.rows import Layout, model_rows


def autocast_to(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """The context for forwards: matrix products in this dtype; None = that of the weights."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a model's log-probs are read."""

    temperature: float
    device: torch.device
    """Where the model computes, wherever its weights are kept."""
    autocast: torch.dtype | None = None
    """The dtype of matrix products; None = that of the weights."""
    layout: Layout = "padded"
    head: Head | None = None
    """What computes log-probs without full logits."""


def token_terms(
    model: PreTrainedModel,
    tokens: Tokens,
    reading: Reading,
    entropy: EntropyMode = "none",
    call: Callable[..., Any] | None = None,
    module: nn.Module | None = None,
) -> PolicyTerms:
    """Log-prob and entropy (nats) of each response token [B, T] at a temperature.

    In float32; zeros where padded. `call` runs the model, if it is not called directly; `module`
    makes the head's values of the prompts' mean hidden states.
    """
    rows = model_rows(tokens, reading.layout, reading.device)
    padded = reading.layout == "padded"
    last = tokens.response_ids.shape[1] if padded else rows.ids.shape[0]
    wanted = Wanted(
        positions=rows.places if padded else torch.arange(last),
        ids=rows.ids,
        last=last,
        temperature=reading.temperature,
        entropy=entropy,
    )
    inputs = {**rows.inputs, "logits_to_keep": last if padded else rows.at}
    with (
        rows.attention(model),
        autocast_to(reading.autocast, reading.device),
        last_states(model, wanted=module is not None) as states,
    ):
        terms = terms_at(model, inputs, wanted, call, reading.head)
    found = PolicyTerms(logp=rows.spread(terms.logp), entropy=rows.spread(terms.entropy))
    if module is None:
        return found
    return replace(found, head=prompt_values(module, states[0], rows, tokens))


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
