"""Advantage estimators against numbers of other implementations."""

from __future__ import annotations

import pytest
import torch

from rlkit.batch import AdvantageBatch
from rlkit.registry import build, entry
from tests.golden.reader import Case, agree, cases, mask_of, tensor

OURS = {
    "adv/grpo": "group_norm",
    "adv/grpo_trl": "group_norm",
    "adv/grpo_batch_std": "group_norm",
    "adv/dr_grpo": "group_mean",
    "adv/rloo": "rloo",
    "adv/rloo_vectorized": "rloo",
    "adv/gae": "gae",
}


def batch_of(case: Case) -> AdvantageBatch:
    mask = mask_of(case)
    unknown = torch.full(mask.shape, torch.nan, dtype=torch.float64)
    return AdvantageBatch(
        reward=tensor(case, "rewards"),
        rewards={},
        token_reward=tensor(case, "token_rewards"),
        greedy_reward=unknown[:, 0],
        mask=mask,
        group=torch.tensor(case["inputs"]["group"]),
        age=torch.zeros(len(mask), dtype=torch.long),
        expert=torch.zeros(len(mask), dtype=torch.bool),
        values=tensor(case, "values") if "values" in case["inputs"] else unknown,
        behavior_logp=unknown,
        prox_logp=unknown,
        anchor_logp={},
    )


@pytest.mark.parametrize("case", cases(*OURS))
def test_advantages_and_returns(case: Case) -> None:
    name = OURS[case["loss"]]
    known = entry("advantage", name).config.model_fields
    estimator = build("advantage", name, **{k: v for k, v in case["config"].items() if k in known})
    b = batch_of(case)
    out = estimator(b)
    agree(out.advantage, torch.tensor(case["expect"]["advantages"]) * b.mask)
    if "returns" in case["expect"]:
        agree(out.returns, torch.tensor(case["expect"]["returns"]) * b.mask)
