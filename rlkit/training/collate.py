"""From groups of samples to tensors, one row per response."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlkit.batch import CACHED, Group, LossBatch, Sample
from rlkit.interfaces import PROMPT_IDS, Tokens, asked_ids
from rlkit.ops import pad
from rlkit.training.references import Rows


def collate(groups: Sequence[Group], step: int, fresh: Sequence[Group] | None = None) -> Rows:
    """The responses of the groups, one after the other.

    Those that are not among the `fresh` groups of the step are replayed; None = all are fresh.
    """
    pairs = [
        (group.prompt, sample, g) for g, group in enumerate(groups) for sample in group.samples
    ]
    samples = [sample for _, sample, _ in pairs]
    asked = [asked_ids(prompt, sample) for prompt, sample, _ in pairs]
    oldest = [int(s.policy_version.min()) if len(s.policy_version) else step for s in samples]
    age = torch.tensor([step - version for version in oldest])
    tokens = Tokens.of(asked, [s.response_ids for s in samples], age=age)
    length = tokens.response_ids.shape[1]
    mask = pad([s.loss_mask for s in samples], length).bool()
    behavior = pad([s.behavior_logp for s in samples], length)
    rewards = sorted({name for s in samples for name in s.rewards})
    extras = sorted({name for s in samples for name in s.extras if reaches_losses(name)})
    source = groups if fresh is None else fresh
    new = {(s.sample_id, s.step) for group in source for s in group.samples}
    batch = LossBatch(
        mask=mask,
        advantage=torch.zeros_like(behavior),
        behavior_logp=behavior,
        prox_logp=behavior,
        anchor_logp={},
        reward=torch.tensor([s.reward for s in samples], dtype=torch.float32),
        group=torch.tensor([g for _, _, g in pairs]),
        age=age,
        expert=torch.tensor([s.source == "expert" for s in samples]),
        replayed=torch.tensor([(s.sample_id, s.step) not in new for s in samples]),
        truncated=torch.tensor([s.finish_reason == "length" for s in samples]),
        response_ids=tokens.response_ids,
        rewards={
            name: torch.tensor([float(s.rewards.get(name, 0.0)) for s in samples])
            for name in rewards
        },
        extras={name: stacked(name, samples, length) for name in extras},
    )
    return Rows(samples=samples, tokens=tokens, batch=batch)


def reaches_losses(name: str) -> bool:
    """Whether an entry of `Sample.extras` says something of the response, and is not a cache."""
    return name != PROMPT_IDS and not name.startswith(CACHED)


def stacked(name: str, samples: Sequence[Sample], length: int) -> Tensor:
    """One entry of `Sample.extras` over the batch: [B, length] if it is per token, else [B].

    0 for a sample without it.
    """
    values = [torch.as_tensor(s.extras.get(name, 0.0), dtype=torch.float32) for s in samples]
    if not any(value.dim() for value in values):
        return torch.stack(values)
    blank = torch.zeros(0)
    return pad([value if value.dim() else blank for value in values], length)
