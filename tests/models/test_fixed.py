"""A loaded model beside the policy: its log-probs, and the number that stands for it."""

from __future__ import annotations

import torch

from rlkit.models.fixed import LoadedModel
from rlkit.models.head import Head
from rlkit.models.policy import Policy
from rlkit.training.collate import collate
from tests.steps import move, rollout
from tests.tiny import make_policy


def loaded(policy: Policy) -> LoadedModel:
    return LoadedModel(policy, policy.device)


def test_it_gives_its_own_log_probs_through_the_head_at_the_temperature() -> None:
    tokens = collate(rollout(make_policy(), 1, n=2, prompts=2), 1).tokens
    plain, with_head = make_policy(seed=3, temperature=0.7), make_policy(seed=3, temperature=0.7)
    with_head.head = Head.of(with_head.model)
    assert with_head.head is not None
    model = loaded(with_head)
    torch.testing.assert_close(model.logp(tokens), plain.logp(tokens))
    assert model.reading.head is with_head.head
    assert not any(p.requires_grad for p in model.model.parameters())


def test_the_number_is_that_of_the_weights_and_the_temperature() -> None:
    """Cached log-probs of one are not those of another."""
    other, moved = make_policy(seed=3, temperature=0.7), make_policy(seed=3)
    move(moved)
    number = loaded(make_policy(seed=3)).number
    assert number == loaded(make_policy(seed=3)).number and 0 < number < 2**63
    assert number not in (loaded(other).number, loaded(moved).number)


def test_kept_elsewhere_its_layers_visit_the_device() -> None:
    """The other device is meta, from which nothing comes back: only where it computes."""
    policy = make_policy(seed=3)
    model = LoadedModel(policy, torch.device("meta"))
    assert model.device == model.reading.device == torch.device("meta")
    assert policy.device == torch.device("cpu")
