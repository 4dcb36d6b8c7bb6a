"""Responses as tensors: what a loss finds besides log-probs, ages, and what is replayed."""

from __future__ import annotations

from dataclasses import replace

import torch

from rlkit.batch import Group
from rlkit.models.policy import Policy
from rlkit.training.collate import collate, stacked
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


def test_an_extra_is_per_token_as_soon_as_one_response_has_it_so(policy: Policy) -> None:
    samples = rollout(policy, step=1, n=3, prompts=1)[0].samples
    samples[0].extras["w"], samples[1].extras["w"] = 2.0, 3.0
    assert stacked("w", samples, 9).tolist() == [2, 3, 0]
    samples[1].extras["w"] = torch.tensor([5.0, 6.0])
    assert stacked("w", samples, 3).tolist() == [[0, 0, 0], [5, 6, 0], [0, 0, 0]]


def test_the_age_of_a_response_is_that_of_its_oldest_token(policy: Policy) -> None:
    groups = rollout(policy, step=3, n=2, prompts=1)
    first, second = groups[0].samples
    first.policy_version[0] = 1
    empty = replace(second, **{n: getattr(second, n)[:0] for n in PER_TOKEN})
    rows = collate([replace(groups[0], samples=[first, second, empty])], 3)
    assert rows.batch.age.tolist() == [2, 0, 0]
    assert rows.batch.mask.sum(-1).tolist()[2] == 0


PER_TOKEN = ("response_ids", "loss_mask", "behavior_logp", "policy_version")


def test_what_is_not_fresh_is_replayed_in_a_group_of_its_own_or_mixed_in(policy: Policy) -> None:
    """A fresh response may be copied on the way, as by a buffer that hands weights to a loss."""
    (fresh,) = rollout(policy, step=3, n=2, prompts=1)
    a, b = fresh.samples
    old = [replace(s, sample_id=100 + s.sample_id) for s in fresh.samples]
    mixed = Group(prompt=fresh.prompt, samples=[old[0], replace(a, extras={"w": 2.0}), b])
    apart = Group(prompt=fresh.prompt, samples=[old[1]])
    assert collate([mixed, apart], 3, [fresh]).batch.replayed.tolist() == [True, False, False, True]
    other = replace(apart, samples=[replace(a, step=0)])
    assert collate([other], 3, [fresh]).batch.replayed.tolist() == [True], (
        "of a pool with ids alike"
    )
    assert collate([mixed], 3, []).batch.replayed.tolist() == [True] * 3
    assert not collate([mixed, apart], 3).batch.replayed.any(), "all are fresh"
