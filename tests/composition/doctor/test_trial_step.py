"""The step that the doctor takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from rlkit.batch import Group
from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.trial_step import chosen_groups, still, tokens_of
from rlkit.errors import UserError
from tests.composition.doctor.patients import patient_of


def test_it_is_taken_and_changes_nothing(healthy: Patient) -> None:
    before = {n: w.clone() for n, w in healthy.policy.model.state_dict().items()}
    step = healthy.step
    assert step.log_ratio < 1e-4
    assert not step.changed
    assert all(torch.equal(w, before[n]) for n, w in healthy.policy.model.state_dict().items())
    assert step.result.metrics["policy/lr"] == 0
    assert step.result.metrics["policy/grad_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=ppo",),
        ("algorithm=grpo", "anchor=base", "anchor.beta=0.1"),
        ("algorithm=bapo",),
        ("algorithm=remax",),
        ("algorithm=sft", "buffer=on_policy"),
        ("train.optimizer=muon", "train.weight_decay=0.1"),
    ],
)
def test_every_kind_of_composition_takes_it(overrides: Sequence[str]) -> None:
    step = patient_of(*overrides).step
    assert not step.changed
    assert not step.result.metrics["policy/skipped_steps"]


@pytest.fixture
def groups() -> list[Group]:
    return list(patient_of().collected.groups)


def test_groups_with_different_rewards_come_first(groups: list[Group]) -> None:
    chosen = chosen_groups(groups, 1e9, 2)
    varied = [len({s.reward for s in g.samples}) > 1 for g in chosen]
    assert varied == sorted(varied, reverse=True)
    assert len(chosen) == len(groups)


def test_one_group_is_cut_to_the_budget(groups: list[Group]) -> None:
    (only,) = chosen_groups(groups, 40, 2)
    assert len(only.samples) == 2
    assert tokens_of(only) <= 40
    first = chosen_groups(groups, 1e9, 2)[0]
    rewards = {s.reward for s in first.samples}
    assert {s.reward for s in only.samples} == rewards
    assert all(len(s.response_ids) == len(s.behavior_logp) for s in only.samples)


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(UserError, match="no response got a reward"):
        chosen_groups([], 100, 2)


def test_rates_are_zero_and_minibatches_fit(healthy: Patient) -> None:
    train = still(healthy.c.config, 2).train
    assert (train.learning_rate, train.critic_learning_rate) == (0, 0)
    assert train.minibatches == 2
