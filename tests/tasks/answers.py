"""Groups of responses with given rewards, for tests of what pass rates become."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlkit.batch import Group, Prompt, Sample

NOTHING = torch.zeros(0, dtype=torch.int64)


def group_of(
    prompt: Prompt | str,
    rewards: Sequence[float | None],
    judge: str = "one",
    source: str = "policy",
) -> Group:
    """A response for each reward; None = the judging reward does not apply to it."""
    if isinstance(prompt, str):
        prompt = Prompt(prompt_id=prompt, text_or_messages="", ids=NOTHING, columns={})
    samples = [
        Sample(
            sample_id=i,
            prompt_id=prompt.prompt_id,
            response_ids=NOTHING,
            loss_mask=NOTHING.bool(),
            behavior_logp=NOTHING.float(),
            policy_version=NOTHING.int(),
            reward=reward or 0.0,
            rewards={} if reward is None else {judge: reward},
            finish_reason="stop",
            source=source,
            step=1,
        )
        for i, reward in enumerate(rewards)
    ]
    return Group(prompt=prompt, samples=samples)
