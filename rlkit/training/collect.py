"""From requests to scored groups.

Generate, score, drop what no reward applies to, ask again for what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rlkit.batch import Demonstration, Group, Prompt, Request, Sample
from rlkit.errors import UserError
from rlkit.interfaces import AdvantageEstimator
from rlkit.rewards.scoring import RewardResult, RewardSet
from rlkit.rollout.base import Generation
from rlkit.rollout.source import Answered, Supply
from rlkit.training.prepare import GREEDY

MAX_TRIES = 10
"""How often a step asks for more prompts when rewards apply to too few responses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A response on its way to become a sample."""

    place: int
    """Which request it answers."""
    prompt: Prompt
    generation: Generation
    demonstration: Demonstration | None = None
    """None for the policy's own."""

    @property
    def is_judged(self) -> bool:
        """Whether the rewards score it."""
        return self.demonstration is None or self.demonstration.reward is None


@dataclass
class Collected:
    """What a step generated."""

    groups: list[Group] = field(default_factory=list)
    rollouts: int = 0
    tokens: int = 0
    truncated: int = 0
    rewards: list[float] = field(default_factory=list)
    components: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"rollout": 0.0, "reward": 0.0})

    def count(
        self, generation: Generation, total: float | None, components: dict[str, float]
    ) -> None:
        """Take one of the policy's responses into the figures."""
        self.rollouts += 1
        self.tokens += len(generation.response_ids)
        self.truncated += generation.finish_reason == "length"
        if total is None:
            return
        self.rewards.append(total)
        for name, value in components.items():
            self.components.setdefault(name, []).append(value)

    def metrics(self) -> dict[str, float]:
        """reward/* and completions/* of the step, over every generated response.

        A step that generates nothing has no mean reward.
        """
        out: dict[str, float] = {}
        if self.rollouts:
            reward = torch.tensor(self.rewards or [0.0])
            out = {
                "reward/mean": float(reward.mean()),
                "reward/std": float(reward.std(correction=0)),
                "completions/mean_length": self.tokens / self.rollouts,
                "completions/clipped_ratio": self.truncated / self.rollouts,
            }
        out |= {f"reward/{name}/mean": sum(v) / len(v) for name, v in self.components.items()}
        return out | {
            f"reward/{name}": float(self.counts.get(name, 0))
            for name in ("errors", "timeouts", "lost")
        }


def score(
    rewards: RewardSet, prompts: Sequence[Prompt], generations: Sequence[Generation], tokenizer: Any
) -> RewardResult:
    """Score one completion a prompt.

    A chat prompt's completion is an assistant message, as in TRL.
    """
    names = sorted({name for prompt in prompts for name in prompt.columns})
    completions: list[Any] = []
    for prompt, generation in zip(prompts, generations, strict=True):
        text = tokenizer.decode(generation.response_ids, skip_special_tokens=True)
        chat = not isinstance(prompt.text_or_messages, str)
        completions.append([{"role": "assistant", "content": text}] if chat else text)
    return rewards.score(
        [p.text_or_messages for p in prompts],
        completions,
        [g.response_ids.tolist() for g in generations],
        {name: [p.columns.get(name) for p in prompts] for name in names},
    )


class Collector:
    """Generates and scores until every planned group is there."""

    def __init__(
        self,
        supply: Supply,
        rewards: RewardSet,
        advantage: AdvantageEstimator,
        tokenizer: Any,
    ) -> None:
        self.supply = supply
        self.rewards = rewards
        self.advantage = advantage
        self.tokenizer = tokenizer

    def collect(self, plan: Callable[[], Sequence[Request]], step: int, first_id: int) -> Collected:
        """The groups of a plan.

        `plan` is asked again while groups are missing; samples are numbered from first_id.
        Raises UserError when too few responses get a reward.
        """
        out = Collected()
        wanted: int | None = None
        for attempt in range(MAX_TRIES):
            started = time.perf_counter()
            missing = None if wanted is None else wanted - len(out.groups)
            answers = self.supply.answers(plan, missing, step, attempt)
            wanted = len(answers) if wanted is None else wanted
            if not answers:
                return out
            generated = time.perf_counter()
            candidates = _candidates(answers, step)
            result = self._score([c for c in candidates if c.is_judged])
            baseline = self._greedy(answers)
            out.seconds["rollout"] += generated - started
            out.seconds["reward"] += time.perf_counter() - generated
            samples = self._samples(out, candidates, result, step, first_id)
            self._group(out, [answer.request for answer in answers], samples, baseline)
            if len(out.groups) >= wanted:
                return out
        raise UserError(
            f"step {step}: after {MAX_TRIES} tries only {len(out.groups)} of {wanted} prompts had "
            f"{self.advantage.min_group} or more responses with a reward; "
            "do the rewards apply to this task?"
        )

    def _score(self, candidates: Sequence[Candidate]) -> RewardResult:
        return score(
            self.rewards,
            [c.prompt for c in candidates],
            [c.generation for c in candidates],
            self.tokenizer,
        )

    def _greedy(self, answers: Sequence[Answered]) -> dict[int, float]:
        """Request -> the reward of its greedy response; empty if the advantage does not use it."""
        greedy = {
            place: Candidate(place=place, prompt=answer.request.prompt, generation=answer.greedy)
            for place, answer in enumerate(answers)
            if answer.greedy is not None
        }
        if not greedy:
            return {}
        result = self._score(list(greedy.values()))
        return {place: value or 0.0 for place, value in zip(greedy, result.total, strict=True)}

    def _samples(
        self,
        out: Collected,
        candidates: Sequence[Candidate],
        result: RewardResult,
        step: int,
        first_id: int,
    ) -> list[tuple[int, Sample]]:
        """(request, sample) of every candidate with a reward; counts the policy's own responses."""
        samples = []
        judged = 0
        for candidate in candidates:
            if candidate.is_judged:
                total, components = result.total[judged], result.at(judged)
                judged += 1
            else:
                assert candidate.demonstration is not None
                total, components = candidate.demonstration.reward, {}
            sample_id = first_id + out.rollouts
            if candidate.demonstration is not None:
                sample_id = -candidate.demonstration.number
            else:
                out.count(candidate.generation, total, components)
            if total is not None:
                samples.append(
                    (candidate.place, _sample(candidate, total, components, step, sample_id))
                )
        for name, count in result.counts.items():
            out.counts[name] = out.counts.get(name, 0) + count
        return samples

    def _group(
        self,
        out: Collected,
        requests: Sequence[Request],
        samples: Sequence[tuple[int, Sample]],
        baseline: dict[int, float],
    ) -> None:
        """Groups with `advantage.min_group` responses, and those of demonstrations alone."""
        answers: list[list[Sample]] = [[] for _ in requests]
        for place, sample in samples:
            answers[place].append(sample)
            if place in baseline:
                sample.extras[GREEDY] = baseline[place]
        for request, members in zip(requests, answers, strict=True):
            if members and (request.n == 0 or len(members) >= self.advantage.min_group):
                out.groups.append(Group(prompt=request.prompt, samples=members))


def _candidates(answers: Sequence[Answered], step: int) -> list[Candidate]:
    """The policy's responses and the demonstrations, request by request."""
    candidates = []
    for place, answer in enumerate(answers):
        prompt = answer.request.prompt
        candidates += [
            *(Candidate(place=place, prompt=prompt, generation=g) for g in answer.own),
            *(
                Candidate(
                    place=place,
                    prompt=prompt,
                    generation=written(demonstration, step),
                    demonstration=demonstration,
                )
                for demonstration in answer.request.demonstrations
            ),
        ]
    return candidates


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


def _sample(
    candidate: Candidate, total: float, components: dict[str, float], step: int, sample_id: int
) -> Sample:
    generation = candidate.generation
    return Sample(
        sample_id=sample_id,
        prompt_id=candidate.prompt.prompt_id,
        response_ids=generation.response_ids,
        loss_mask=torch.ones(len(generation.response_ids), dtype=torch.bool),
        behavior_logp=generation.logp,
        policy_version=generation.policy_version,
        reward=total,
        rewards=components,
        finish_reason=generation.finish_reason,
        source="policy" if candidate.demonstration is None else "expert",
        step=step,
        extras=dict(generation.extras),
    )
