"""From requests to scored groups.

Generate, score, drop what no reward applies to, ask again for what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from rlkit.batch import Group, Prompt, Request, Sample
from rlkit.errors import UserError
from rlkit.interfaces import AdvantageEstimator
from rlkit.prepare import GREEDY
from rlkit.rewards.scoring import RewardResult, RewardSet
from rlkit.rollout.base import Generation, RolloutEngine

MAX_TRIES = 10
"""How often a step asks for more prompts when rewards apply to too few responses."""


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

    def metrics(self) -> dict[str, float]:
        """reward/* and completions/* of the step, over every generated response."""
        reward = torch.tensor(self.rewards or [0.0])
        out = {
            "reward/mean": float(reward.mean()),
            "reward/std": float(reward.std(correction=0)),
            "completions/mean_length": self.tokens / max(1, self.rollouts),
            "completions/clipped_ratio": self.truncated / max(1, self.rollouts),
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
        engine: RolloutEngine[Any],
        rewards: RewardSet,
        advantage: AdvantageEstimator,
        tokenizer: Any,
    ) -> None:
        self.engine = engine
        self.rewards = rewards
        self.advantage = advantage
        self.tokenizer = tokenizer

    def collect(self, plan: Callable[[], Sequence[Request]], step: int, first_id: int) -> Collected:
        """The groups of a plan.

        `plan` is asked again while groups are missing; samples are numbered from first_id.
        Raises UserError when too few responses get a reward.
        """
        out = Collected()
        wanted = 0
        for attempt in range(MAX_TRIES):
            requests = list(plan())
            wanted = wanted or len(requests)
            requests = requests[: wanted - len(out.groups)]
            if not requests:
                return out
            started = time.perf_counter()
            answers = self.engine.generate(requests, ("rollout", step, attempt))
            generated = time.perf_counter()
            result = self._score(requests, answers)
            baseline = self._greedy(requests, step, attempt)
            out.seconds["rollout"] += generated - started
            out.seconds["reward"] += time.perf_counter() - generated
            self._add(out, requests, answers, (result, baseline), step=step, first_id=first_id)
            if len(out.groups) >= wanted:
                return out
        raise UserError(
            f"step {step}: after {MAX_TRIES} tries only {len(out.groups)} of {wanted} prompts had "
            f"{self.advantage.min_group} or more responses with a reward; "
            "do the rewards apply to this task?"
        )

    def _score(
        self, requests: Sequence[Request], answers: Sequence[Sequence[Generation]]
    ) -> RewardResult:
        flat = [(r.prompt, g) for r, group in zip(requests, answers, strict=True) for g in group]
        return score(self.rewards, [p for p, _ in flat], [g for _, g in flat], self.tokenizer)

    def _greedy(self, requests: Sequence[Request], step: int, attempt: int) -> list[float] | None:
        """The reward of each prompt's greedy response; None if the advantage does not use it."""
        if not self.advantage.needs_greedy:
            return None
        single = [Request(prompt=r.prompt, n=1) for r in requests]
        answers = self.engine.generate(single, ("greedy", step, attempt), greedy=True)
        return [value or 0.0 for value in self._score(single, answers).total]

    def _add(
        self,
        out: Collected,
        requests: Sequence[Request],
        answers: Sequence[Sequence[Generation]],
        scored: tuple[RewardResult, list[float] | None],
        *,
        step: int,
        first_id: int,
    ) -> None:
        """Count every response; keep those with a reward in groups the advantage can use.

        A group needs `advantage.min_group` responses.
        """
        result, baseline = scored
        index = 0
        for number, (request, generations) in enumerate(zip(requests, answers, strict=True)):
            samples = []
            for generation in generations:
                sample = _sample(
                    request.prompt, generation, result, index, step, first_id + out.rollouts
                )
                index += 1
                out.rollouts += 1
                out.tokens += len(generation.response_ids)
                out.truncated += generation.finish_reason == "length"
                if sample is None:
                    continue
                for name, value in sample.rewards.items():
                    out.components.setdefault(name, []).append(value)
                out.rewards.append(sample.reward)
                if baseline is not None:
                    sample = replace(sample, extras={**sample.extras, GREEDY: baseline[number]})
                samples.append(sample)
            if len(samples) >= self.advantage.min_group:
                out.groups.append(Group(prompt=request.prompt, samples=samples))
        for name, count in result.counts.items():
            out.counts[name] = out.counts.get(name, 0) + count


def _sample(
    prompt: Prompt,
    generation: Generation,
    result: RewardResult,
    index: int,
    step: int,
    sample_id: int,
) -> Sample | None:
    """The response with its reward; None where no reward applies."""
    total = result.total[index]
    if total is None:
        return None
    return Sample(
        sample_id=sample_id,
        prompt_id=prompt.prompt_id,
        response_ids=generation.response_ids,
        loss_mask=torch.ones(len(generation.response_ids), dtype=torch.bool),
        behavior_logp=generation.logp,
        policy_version=generation.policy_version,
        reward=total,
        rewards={n: value for n, v in result.components.items() if (value := v[index]) is not None},
        finish_reason=generation.finish_reason,
        step=step,
        extras=generation.extras,
    )
