"""A training step with learning rate 0, made of a run's own pieces, on some of the responses."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from rlkit.batch import Group, Sample
from rlkit.composition.doctor.answers import STEP
from rlkit.config.run import RunConfig
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.rollout.vllm.worker import checksum
from rlkit.training.prepare import Scorer, TrainBatch, prepare
from rlkit.training.update import Updater, UpdateResult

if TYPE_CHECKING:
    from rlkit.composition.doctor.patient import Patient

UPDATE_COST = 5
"""About how many forwards a training step takes: log-probs, and a forward and backward."""
SHORTEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStep:
    """What the step did."""

    batch: TrainBatch
    result: UpdateResult
    made_up: bool
    """Whether the rewards were made up, since those of each group were equal."""
    changed: Sequence[str]
    """Names of the weights whose bits changed."""
    prepare_seconds: float
    update_seconds: float

    @property
    def tokens(self) -> int:
        """Prompt and response tokens of the batch."""
        return int(self.batch.tokens.lengths.sum())

    @property
    def log_ratio(self) -> float:
        """The largest |log-prob in the update - behavior log-prob|, in nats."""
        found = [
            (self.result.scores[sample.sample_id].logp - sample.behavior_logp).abs().max()
            for sample in self.batch.samples
            if sample.sample_id in self.result.scores and len(sample.behavior_logp)
        ]
        return float(torch.stack(found).max()) if found else 0.0


def take_step(patient: Patient, seconds: float) -> TrialStep:
    """Prepare a batch and update on it once, with learning rate 0."""
    c, policy, anchor = patient.c, patient.policy, patient.anchor
    budget = patient.scored.per_second * seconds / UPDATE_COST
    least = c.parts.advantage.min_group
    groups = chosen_groups(patient.collected.groups, budget, least)
    made_up = least > 1 and not any(map(varied, groups))
    if made_up:
        groups = [with_rewards(group) for group in groups]
    updater = Updater(
        still(c.config, len(groups)), policy, c.parts, c.engine.config.max_completion_length
    )
    own = patient.engine.matches_trainer
    scorer = Scorer(
        policy=policy,
        critic=updater.critic.critic if updater.critic else None,
        forwards=updater.forwards,
        behavior=("own" if policy.batch_invariant else "rounded") if own else "foreign",
        first=updater.first_rows,
    )
    before = checksums(policy)
    started = time.perf_counter()
    batch = prepare(groups, STEP, c.parts, scorer, groups)
    prepared = time.perf_counter()
    anchor.before_step(policy, STEP)
    result = updater.run(batch, 1, STEP)
    ended = time.perf_counter()
    after = checksums(policy)
    return TrialStep(
        batch=batch,
        result=result,
        made_up=made_up,
        changed=[name for name, bits in before.items() if after[name] != bits],
        prepare_seconds=prepared - started,
        update_seconds=ended - prepared,
    )


def still(config: RunConfig, groups: int) -> RunConfig:
    """The run's settings with learning rates of 0, which the run itself would not accept."""
    train = config.train.model_copy(
        update={
            "learning_rate": 0.0,
            "critic_learning_rate": 0.0,
            "minibatches": min(config.train.minibatches, groups),
        }
    )
    return config.model_copy(update={"train": train})


def checksums(policy: Policy) -> Mapping[str, int]:
    """The sum of the bits of each weight."""
    return {name: checksum(weight) for name, weight in policy.model.named_parameters()}


def chosen_groups(groups: Sequence[Group], budget: float, least: int) -> list[Group]:
    """Groups of about so many tokens together, those with different rewards first.

    At least one; if it has too many tokens, responses are left out, and then cut.
    """
    if not groups:
        raise UserError("no response got a reward, so there is nothing to train on")
    ordered = sorted(groups, key=lambda group: not varied(group))
    chosen: list[Group] = []
    room = budget
    for group in ordered:
        if chosen and tokens_of(group) > room:
            continue
        chosen.append(group)
        room -= tokens_of(group)
    return [shortened(chosen[0], budget, least)] if len(chosen) == 1 else chosen


def varied(group: Group) -> bool:
    """Whether its rewards differ."""
    return len({sample.reward for sample in group.samples}) > 1


def with_rewards(group: Group) -> Group:
    """The group with rewards of 0 and 1 in turn."""
    samples = [
        replace(s, reward=float(i % 2), rewards=dict.fromkeys(s.rewards, float(i % 2)))
        for i, s in enumerate(group.samples)
    ]
    return Group(prompt=group.prompt, samples=samples)


def tokens_of(group: Group) -> int:
    """Prompt and response tokens of a group."""
    return sum(len(group.prompt.ids) + len(s.response_ids) for s in group.samples)


def shortened(group: Group, budget: float, least: int) -> Group:
    """The group with fewer, and then shorter, responses if it has more tokens than the budget.

    Responses of both the lowest and the highest reward stay.
    """
    samples = sorted(group.samples, key=lambda s: s.reward)
    while (
        len(samples) > max(2, least)
        and tokens_of(Group(prompt=group.prompt, samples=samples)) > budget
    ):
        samples.pop(len(samples) // 2)
    kept = Group(prompt=group.prompt, samples=samples)
    if tokens_of(kept) <= budget:
        return kept
    each = max(SHORTEST, int(budget / len(samples)) - len(group.prompt.ids))
    return Group(prompt=group.prompt, samples=[cut(sample, each) for sample in samples])


def cut(sample: Sample, length: int) -> Sample:
    """The first tokens of a response."""
    count = len(sample.response_ids)
    return replace(
        sample,
        response_ids=sample.response_ids[:length],
        loss_mask=sample.loss_mask[:length],
        behavior_logp=sample.behavior_logp[:length],
        policy_version=sample.policy_version[:length],
        extras={
            name: value[:length]
            if isinstance(value, torch.Tensor) and len(value) == count
            else value
            for name, value in sample.extras.items()
        },
    )
