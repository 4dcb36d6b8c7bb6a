"""Responses of the engine to some problems, as many as the time allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlkit.batch import Prompt, Request
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.source import Completed, Source, StepPlan, once
from rlkit.tasks.stream import PromptStream

if TYPE_CHECKING:
    from rlkit.composition.doctor.patient import Patient

STEP = 1
"""The training step whose weights the engine has."""
RESPONSES, GROUPS, GROUP_SIZE = 64, 16, 16
"""At most so many responses, groups, and responses in a group."""
LEAST_GROUPS, SHORTEST = 2, 16
TRIAL = 16
"""Tokens per response of the trial that measures the speed."""
AGAIN = 4
"""Problems that are asked a second time."""


@dataclass(frozen=True, kw_only=True)
class Answers(Source):
    """The responses, group by group. As a source it hands them to a `Collector` once."""

    requests: Sequence[Request]
    own: Sequence[Sequence[Generation]]
    greedy: Sequence[Generation | None]
    again: Sequence[tuple[Prompt, Generation]]
    """Short responses to the first problems asked once more, whose prompts a cache may hold."""
    plan: StepPlan
    seconds: float
    """Spent on `own`."""
    limit: int
    """Most tokens of a response here, which is less than the run's where time did not allow it."""

    def completed(self, plan: StepPlan, missing: int | None, attempt: int) -> list[Completed]:
        """All groups at the first attempt, none later."""
        if attempt > 0:
            return []
        rows = zip(self.requests, self.own, self.greedy, strict=True)
        return [Completed(request=r, own=own, greedy=greedy) for r, own, greedy in rows]

    @property
    def flat(self) -> list[tuple[Prompt, Generation]]:
        """Every response with its prompt: the first of each group, then the second of each, ..."""
        n = max(len(group) for group in self.own)
        return [
            (request.prompt, group[i])
            for i in range(n)
            for request, group in zip(self.requests, self.own, strict=True)
            if i < len(group)
        ]

    @property
    def tokens(self) -> int:
        """Tokens of all responses."""
        return sum(len(generation.response_ids) for _, generation in self.flat)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is generated."""

    groups: int
    n: int
    length: int


def affordable(wanted: Sizes, smallest: int, tokens: float) -> Sizes:
    """Sizes with which no more than so many tokens are generated, if that is possible.

    First groups are left out, then responses of a group down to `smallest`, then their ends.
    """
    groups = min(wanted.groups, max(LEAST_GROUPS, int(tokens / (wanted.n * wanted.length))))
    n = min(wanted.n, max(smallest, int(tokens / (groups * wanted.length))))
    length = min(wanted.length, max(SHORTEST, int(tokens / (groups * n))))
    return Sizes(groups=groups, n=n, length=length)


def ask(patient: Patient, seconds: float) -> Answers:
    """Ask the engine, for about so many seconds at most if it can stop where it is told to."""
    engine, config, looked = patient.engine, patient.engine.config, patient.problems
    least = patient.c.parts.advantage.min_group
    n = max(least, min(config.num_generations, GROUP_SIZE))
    groups = max(LEAST_GROUPS, min(GROUPS, RESPONSES // n))
    prompts = looked.drawn(groups, patient.c.config.seed)
    sizes = Sizes(groups=len(prompts), n=n, length=config.max_completion_length)
    engine.sync(STEP)
    if config.continues:
        trial = [Request(prompt=p, n=n, max_tokens=TRIAL) for p in prompts[:LEAST_GROUPS]]
        started = time.perf_counter()
        answers = engine.generate(GenerationCall(trial, ("doctor", STEP, 0)))
        made = sum(len(g.response_ids) for group in answers for g in group)
        speed = made / (time.perf_counter() - started)
        sizes = affordable(sizes, min(n, max(least, 4)), speed * seconds)
    requests = [
        Request(prompt=p, n=sizes.n, max_tokens=sizes.length) for p in prompts[: sizes.groups]
    ]
    started = time.perf_counter()
    own = engine.generate(GenerationCall(requests, ("doctor", STEP, 1)))
    took = time.perf_counter() - started
    return Answers(
        requests=requests,
        own=own,
        greedy=_greedy(patient, requests),
        again=_again(patient, requests),
        plan=StepPlan(
            buffer=None,
            prompts=PromptStream(looked.prompts, 0, sizes.n, sizes.length),
            groups=len(requests),
            step=STEP,
        ),
        seconds=took,
        limit=sizes.length,
    )


def _greedy(patient: Patient, requests: Sequence[Request]) -> list[Generation | None]:
    """The greedy response to each prompt, if the advantage needs it."""
    if not patient.c.parts.advantage.needs_greedy:
        return [None] * len(requests)
    short = [replace(each, max_tokens=requests[0].max_tokens) for each in once(requests)]
    found = patient.engine.generate(GenerationCall(short, ("doctor", STEP, 2), greedy=True))
    return [response for (response,) in found]


def _again(patient: Patient, requests: Sequence[Request]) -> list[tuple[Prompt, Generation]]:
    """Short responses to the first problems, asked once more; none if the engine cannot stop."""
    if not patient.engine.config.continues:
        return []
    short = [replace(each, max_tokens=TRIAL) for each in once(requests)[:AGAIN]]
    found = patient.engine.generate(GenerationCall(short, ("doctor", STEP, 3)))
    return [(request.prompt, response) for request, (response,) in zip(short, found, strict=True)]
