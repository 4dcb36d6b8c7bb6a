"""The batch of a step: what a loss finds in it besides log-probs."""

from __future__ import annotations

import torch

from rlkit.models.policy import Policy
from rlkit.training.prepare import collate
from tests.steps import rollout


def test_a_loss_finds_extras_rewards_and_response_ids(policy: Policy) -> None:
    groups = rollout(policy, step=1, n=2, prompts=2)
    samples = [s for group in groups for s in group.samples]
    samples[0].extras["importance"] = 0.25
    samples[1].extras["per_token"] = torch.arange(len(samples[1].response_ids)).float()
    samples[1].extras["anchor_logp:base:0"] = torch.zeros(len(samples[1].response_ids))
    batch = collate(groups, 1).batch
    assert batch.extras.keys() == {"importance", "per_token"}
    assert batch.extras["importance"].tolist() == [0.25, 0, 0, 0]
    assert batch.extras["per_token"].shape == batch.mask.shape
    length = len(samples[1].response_ids)
    assert batch.extras["per_token"][1, :length].tolist() == list(range(length))
    assert not batch.extras["per_token"][[0, 2, 3]].any()
    assert batch.rewards["one"].tolist() == [s.rewards["one"] for s in samples]
    for row, sample in zip(batch.response_ids, samples, strict=True):
        assert row[: len(sample.response_ids)].tolist() == sample.response_ids.tolist()
    part = batch.rows(torch.tensor([1]))
    assert torch.equal(part.extras["per_token"], batch.extras["per_token"][1:2])
    assert torch.equal(part.response_ids, batch.response_ids[1:2])
