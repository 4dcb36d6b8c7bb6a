"""What the policy would draw at every place of a response, in one forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.memory import SMALLER, is_out_of_memory, release
from rlkit.models.policy import Policy
from rlkit.models.recompute import evaluating
from rlkit.rollout.sampling import Choice, Sampler

TOKENS = 4096
"""Tokens that a forward reads, prompts and padding included; a longer sequence is read alone."""
PLACES = 512
"""Places at which tokens are drawn together."""


@torch.no_grad()
def draws_at(
    policy: Policy,
    prompts: Sequence[Tensor],
    responses: Sequence[Tensor],
    uniforms: Sequence[Tensor],
    sampler: Sampler,
) -> list[Choice]:
    """The policy's draw after each prompt [P_i] and each beginning of its response [T_i].

    At the place t it is the inverse CDF at `uniforms` [T_i] of the policy's distribution after
    response[:t], as the engine hf draws. All on the CPU.
    """

    def drawn(part: slice) -> list[Choice]:
        return _drawn(policy, prompts[part], responses[part], uniforms[part], sampler)

    return _read(policy, prompts, responses, drawn)


@torch.no_grad()
def scores_of(
    policy: Policy, prompts: Sequence[Tensor], responses: Sequence[Tensor]
) -> list[Choice]:
    """The tokens of each response themselves, with the policy's log-probs of them [T_i]."""

    def scored(part: slice) -> list[Choice]:
        logp = policy.logp(Tokens.of(list(prompts[part]), list(responses[part]))).cpu()
        rows = zip(responses[part], logp, strict=True)
        return [Choice(ids, row[: len(ids)].clone(), None) for ids, row in rows]

    return _read(policy, prompts, responses, scored)


def batches(prompts: Sequence[Tensor], responses: Sequence[Tensor]) -> Iterator[slice]:
    """Consecutive sequences [P_i], [T_i] that have at most TOKENS tokens, or one that is longer.

    Prompts and responses are padded to the longest of each.
    """
    start, prompt, response = 0, 0, 0
    for place, one in enumerate(zip(map(len, prompts), map(len, responses), strict=True)):
        longer = max(prompt, one[0]), max(response, one[1])
        if place > start and sum(longer) * (place + 1 - start) > TOKENS:
            yield slice(start, place)
            start, longer = place, one
        prompt, response = longer
    if prompts:
        yield slice(start, len(prompts))


def _read(
    policy: Policy,
    prompts: Sequence[Tensor],
    responses: Sequence[Tensor],
    read: Callable[[slice], list[Choice]],
) -> list[Choice]:
    """What `read` finds for all responses, which it is asked for in batches."""
    with evaluating(policy.model):
        return [one for part in batches(prompts, responses) for one in _fitting(part, read)]


def _fitting(part: slice, read: Callable[[slice], list[Choice]]) -> list[Choice]:
    """One forward; in halves if it does not fit."""
    try:
        return read(part)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if part.stop - part.start == 1:
            raise UserError(f"out of memory reading one draft; use {SMALLER}") from error
    release()
    middle = (part.start + part.stop) // 2
    halves = (slice(part.start, middle), slice(middle, part.stop))
    return [one for half in halves for one in _fitting(half, read)]


def _drawn(
    policy: Policy,
    prompts: Sequence[Tensor],
    responses: Sequence[Tensor],
    uniforms: Sequence[Tensor],
    sampler: Sampler,
) -> list[Choice]:
    tokens = Tokens.of(list(prompts), list(responses))
    width = tokens.response_ids.shape[1]
    with policy.autocasting():
        logits = policy.model(
            **tokens.model_inputs(policy.device), use_cache=False, logits_to_keep=width + 1
        ).logits[:, -width - 1 : -1]  # [b, T, V]
    lengths = [len(response) for response in responses]
    rows = torch.cat([logits[row, :length] for row, length in enumerate(lengths)])  # [N, V]
    uniform = torch.cat(list(uniforms)).to(policy.device)
    chosen = [
        sampler(some, numbers)
        for some, numbers in zip(
            torch.split(rows, PLACES), torch.split(uniform, PLACES), strict=True
        )
    ]
    token, logp, kept = (
        _joined([getattr(one, name) for one in chosen]) for name in ("token", "logp", "kept")
    )
    assert token is not None and logp is not None
    parts = [None] * len(lengths) if kept is None else torch.split(kept, lengths)
    return [
        Choice(*one)
        for one in zip(torch.split(token, lengths), torch.split(logp, lengths), parts, strict=True)
    ]


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known).cpu() if known else None
