"""From requests to scored groups.

Generate, score, drop what no reward applies to, ask again for what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from rlkit.batch import Demonstration, Group, Prompt, Sample
from rlkit.errors import UserError
from rlkit.evaluation.answers import score
from rlkit.interfaces import AdvantageEstimator
from rlkit.rewards.scoring import RewardResult, RewardSet
from rlkit.rewards.weights import GREEDY, limits_of
from rlkit.rollout.base import Generation
from rlkit.rollout.source import Completed, Source, StepPlan
from rlkit.tasks.identity import labels_of
from rlkit.training.metrics import RolloutTally

MAX_TRIES = 10
"""How often a step asks for more prompts if rewards apply to too few responses."""


@dataclass
class Collected:
    """What a step generated."""

    groups: list[Group] = field(default_factory=list)
    tally: RolloutTally = field(default_factory=RolloutTally)
    seconds: dict[str, float] = field(default_factory=lambda: {"rollout": 0.0, "reward": 0.0})


class Mark(NamedTuple):
    """The rewards of a response."""

    total: float | None
    """None = no reward applies."""
    components: dict[str, float]


class Collector:
    """Generates and scores until every planned group is there."""

    def __init__(
        self,
        source: Source,
        rewards: RewardSet,
        advantage: AdvantageEstimator,
        tokenizer: Any,
        tasks: Collection[str] = (),
    ) -> None:
        self.source = source
        self.rewards = rewards
        self.advantage = advantage
        self.tokenizer = tokenizer
        self.tasks = tasks

    def collect(self, plan: StepPlan, first_id: int) -> Collected:
        """The groups of a step; samples are numbered from first_id.

        Asks again while groups are missing. Raises UserError if too few responses get a reward.
        """
        out = Collected(tally=RolloutTally(limits=limits_of(self.rewards.rewards)))
        self.source.begin(plan)
        missing: int | None = None
        wanted = 0
        for attempt in range(MAX_TRIES):
            started = time.perf_counter()
            completed = self.source.completed(plan, missing, attempt)
            out.seconds["rollout"] += time.perf_counter() - started
            if attempt == 0:
                wanted = len(completed)
            if not completed:
                return out
            started = time.perf_counter()
            out.groups += self._groups(completed, plan.step, first_id, out.tally)
            out.seconds["reward"] += time.perf_counter() - started
            missing = wanted - len(out.groups)
            if missing <= 0:
                return out
        raise UserError(
            f"step {plan.step}: after {MAX_TRIES} tries only {len(out.groups)} of {wanted} prompts "
            f"had {self.advantage.min_group} or more responses with a reward; "
            "do the rewards apply to this task?"
        )

    def _groups(
        self, completed: Sequence[Completed], step: int, first_id: int, tally: RolloutTally
    ) -> list[Group]:
        """Groups with `advantage.min_group` responses, and those of demonstrations alone."""
        judged = self._judge(completed)
        tally.happened(judged.counts)
        marks = iter([Mark(judged.total[i], judged.at(i)) for i in range(len(judged.total))])
        greedy = iter(self._greedy_rewards(completed, tally))
        groups = []
        for answer in completed:
            samples, labels = [], labels_of(answer.prompt, self.tasks)
            for generation in answer.own:
                mark, sample_id = next(marks), first_id + tally.rollouts
                tally.count(generation, mark.total, mark.components, labels)
                samples += sample_of(answer.prompt, generation, mark, step, sample_id)
            for shown in answer.request.demonstrations:
                mark = next(marks) if shown.reward is None else Mark(shown.reward, {})
                samples += sample_of(answer.prompt, written(shown, step), mark, step, -shown.number)
            if answer.greedy is not None:
                baseline = next(greedy)
                if baseline is None:
                    continue
                for sample in samples:
                    sample.extras[GREEDY] = baseline
            enough = answer.request.n == 0 or len(samples) >= self.advantage.min_group
            if samples and enough:
                groups.append(Group(prompt=answer.prompt, samples=samples))
        return groups

    def _judge(self, completed: Sequence[Completed]) -> RewardResult:
        """The rewards of all responses, group by group; a demonstration may bring its own."""
        pairs = [
            (answer.prompt, generation)
            for answer in completed
            for generation in (
                *answer.own,
                *(written(d, 0) for d in answer.request.demonstrations if d.reward is None),
            )
        ]
        return score(self.rewards, [p for p, _ in pairs], [g for _, g in pairs], self.tokenizer)

    def _greedy_rewards(
        self, completed: Sequence[Completed], tally: RolloutTally
    ) -> Sequence[float | None]:
        """The reward of each greedy response; empty if the advantage does not use them."""
        greedy = [(answer.prompt, answer.greedy) for answer in completed if answer.greedy]
        if not greedy:
            return []
        found = score(self.rewards, [p for p, _ in greedy], [g for _, g in greedy], self.tokenizer)
        tally.happened(found.counts)
        return found.total


def written(demonstration: Demonstration, step: int) -> Generation:
    """A demonstration as an engine would return it: with log-probs of 0, which nothing may read."""
    ids = demonstration.response_ids
    return Generation(
        response_ids=ids,
        logp=torch.zeros(len(ids)),
        policy_version=torch.full((len(ids),), step, dtype=torch.int32),
        finish_reason="stop",
        extras={},
    )


def sample_of(
    prompt: Prompt, generation: Generation, mark: Mark, step: int, sample_id: int
) -> list[Sample]:
    """The response as a sample, if a reward applies; a negative id is a demonstration's."""
    if mark.total is None:
        return []
    return [
        Sample(
            sample_id=sample_id,
            prompt_id=prompt.prompt_id,
            response_ids=generation.response_ids,
            loss_mask=generation.loss_mask,
            behavior_logp=generation.logp,
            policy_version=generation.policy_version,
            reward=mark.total,
            rewards=mark.components,
            finish_reason=generation.finish_reason,
            source="policy" if sample_id >= 0 else "expert",
            step=step,
            extras=generation.kept,
        )
    ]
