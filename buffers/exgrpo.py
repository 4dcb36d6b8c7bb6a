"""Replay of a run's own successes on half-solved prompts (ExGRPO)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from buffers.prompt_store import PromptStore
from buffers.replay import AgeConfig, by_age, sample_staleness
from buffers.rows import Ints, NamedRows
from buffers.selection import NO_TOKEN, draw_buckets, tiers_of, version_number
from buffers.storage import oldest_version
from rlkit.batch import Group, Prompt, Request, Sample, Score
from rlkit.interfaces import PromptSource, State
from rlkit.registry import register

TRIES = 10
"""How often a plan replaces new prompts that are retired or replayed already."""


class ExgrpoConfig(AgeConfig):
    """Settings of the share, of the buckets and of the start."""

    replay_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a batch's groups that hold a replayed response, rho."""
    success_at: float = 1.0
    """A response with at least this reward is a success."""
    bucket_law: Literal["share", "count"] = "share"
    """Chance of a prompt's bucket, k successes of K: share = Normal(k/K; 1/2, 1), the paper's;
    count = Normal(k; K/2, 1), the code's, far sharper (4 of 8 against 1 of 8: 90:1, not 1.07:1)."""
    start_at: Annotated[float, Field(ge=0, lt=1)] = 0.35
    """Replay starts after a step in which more than this share of the new responses succeeds."""
    per_prompt: Annotated[int, Field(ge=1)] = 16
    """Successes kept for a prompt, the newest; every one is scored when the prompt is drawn. Our
    bound, the paper has none."""
    skip_retired: bool = True
    """Whether prompts that were solved every time are passed over in the data order too."""


def bucket_weight(successes: int, responses: int, law: Literal["share", "count"]) -> float:
    """The unnormalized Gaussian weight of a bucket."""
    distance = successes - responses / 2
    if law == "share":
        distance /= responses
    return math.exp(-(distance**2) / 2)


@register("buffer", "exgrpo")
class Exgrpo(PromptStore[ExgrpoConfig]):
    """Groups of some prompts get K - 1 new responses and one of their earlier successes.

    min(floor(rho B), prompts) prompts are drawn: first a bucket by its weight, then a prompt in it
    uniformly, without replacement. Of a prompt's stored successes the one with the lowest mean
    token entropy under the current policy is replayed, with its stored log-probs; advantages are
    over the mixed group. What is stored are different successes of prompts that are solved some of
    the time; the bucket is the latest count of successes among the prompt's new responses. A prompt
    solved every time leaves for good. Replay starts after a step above `start_at` and then stays
    on. Source: ExGRPO (arXiv:2510.02245). Status: adapted. K is the number of new responses a
    prompt usually gets; at least 2 are generated beside the replayed one, because group statistics
    need them. Its two losses and shaping belong to the loss.

    Public code: ElliottYan/LUFFY (ExGRPO). The two bucket laws differ between paper and code. Its
    entropy helper selects padding and is not followed.
    """

    sources = ("2510.02245",)

    def __init__(self, config: ExgrpoConfig | None = None) -> None:
        super().__init__(config)
        self.rows = NamedRows(successes=np.int64, newest=np.int64)
        """The prompts of `stored`, in its order: the bucket of each, and the oldest weights of its
        youngest success, or NO_TOKEN."""
        self.retired: dict[str, None] = {}
        """Prompts that are never replayed again, in order."""
        self.started = False
        self.planned = -1
        """The last step that was planned."""
        self.chosen: dict[str, list[Sample]] = {}
        """The drawn prompts of the step under way, with their stored successes."""
        self.entropy: dict[int, float] = {}
        """Sample id -> its entropy under the current policy."""

    @property
    def successes(self) -> dict[str, int]:
        """Prompt id -> its bucket."""
        return dict(zip(self.rows, self.rows["successes"].tolist(), strict=True))

    def replays(self, batch: int) -> bool:
        """Groups of drawn prompts have a stored success."""
        return self.config.replay_fraction > 0

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """The drawn prompts with one response less, then new prompts.

        Asked again in the same step, only new ones.
        """
        usual = prompts.num_generations
        requests: list[Request] = []
        if step != self.planned:
            self.planned = step
            self.chosen = self._choose(batch, step, usual)
            self.entropy = {}
            requests = [
                Request(prompt=prompts.get(name), n=max(2, usual - 1)) for name in self.chosen
            ]
        new = self._new_prompts(prompts, batch - len(requests))
        return requests + [Request(prompt=prompt, n=usual) for prompt in new]

    def scores_wanted(self, step: int) -> list[Sample]:
        """Every stored success of the drawn prompts."""
        return [sample for stored in self.chosen.values() for sample in stored]

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Remember the entropies of the wanted samples."""
        wanted = {s.sample_id for stored in self.chosen.values() for s in stored}
        self.entropy |= {name: s.entropy for name, s in scores.items() if name in wanted}

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups; those of drawn prompts with their success of lowest entropy."""
        left = dict(self.chosen)
        trained: list[Group] = []
        for group in fresh:
            stored = left.pop(group.prompt.prompt_id, None)
            if stored:
                best = min(
                    stored, key=lambda s: (self.entropy.get(s.sample_id, math.inf), -s.sample_id)
                )
                group = Group(prompt=group.prompt, samples=[*group.samples, best])
            trained.append(group)
        return trained

    def add(self, fresh: list[Group], step: int) -> None:
        """Store new successes, move prompts between buckets, retire those that are solved."""
        self.chosen, self.entropy = {}, {}
        results = [self._succeeded(sample) for group in fresh for sample in group.samples]
        if results and sum(results) / len(results) > self.config.start_at:
            self.started = True
        for group in fresh:
            self._file(group)

    def stats(self) -> dict[str, float]:
        """Prompts in buckets, retired ones, and whether replay has started."""
        return {
            "prompts": float(len(self.stored)),
            "retired": float(len(self.retired)),
            "started": float(self.started),
        }

    def clear(self) -> None:
        """Forget every success, the retired prompts and the start."""
        super().clear()
        self.rows.clear()
        self.retired = {}
        self.started, self.planned = False, -1
        self.chosen, self.entropy = {}, {}

    def state_dict(self) -> State:
        """The successes, the buckets, the retired prompts and whether replay has started.

        What a step keeps between its plan and its end is not of use to the next one.
        """
        return super().state_dict() | {
            "successes": self.successes,
            "retired": list(self.retired),
            "started": self.started,
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict(state)
        names = list(self.stored)
        self.rows.put(
            names,
            successes=[state["successes"][name] for name in names],
            newest=[_newest(self.stored[name]) for name in names],
        )
        self.retired = dict.fromkeys(state["retired"])
        self.started = state["started"]

    def _succeeded(self, sample: Sample) -> bool:
        return sample.reward >= self.config.success_at

    def _choose(self, batch: int, step: int, responses: int) -> dict[str, list[Sample]]:
        if not self.started:
            return {}
        count = math.floor(self.config.replay_fraction * batch + 1e-9)
        rng, names = self.rng(step), list[str]()
        for tier in tiers_of(self.rows["newest"], step, self.config):
            keys, bucket = _numbered(self.rows["successes"][tier])
            weights = [bucket_weight(k, responses, self.config.bucket_law) for k in keys]
            drawn = draw_buckets(rng, bucket, np.array(weights), count - len(names))
            names += self.rows["name"][tier[drawn]].tolist()
        return {name: self._youngest_tier(name, step) for name in names}

    def _youngest_tier(self, name: str, step: int) -> list[Sample]:
        """The successes of a prompt within `max_age`, those over age if none is."""
        stored = self.stored[name]
        tiers = by_age(stored, lambda sample: sample_staleness(sample, step), self.config)
        return next(tier for tier in tiers if tier)

    def _new_prompts(self, prompts: PromptSource, count: int) -> list[Prompt]:
        """The next prompts of the data order that are neither drawn nor retired, if there are."""
        retired = self.retired if self.config.skip_retired else {}
        found: list[Prompt] = []
        for _ in range(TRIES):
            taken = prompts.take(count - len(found))
            found += [
                p for p in taken if p.prompt_id not in self.chosen and p.prompt_id not in retired
            ]
            if len(found) == count:
                return found
        return found + prompts.take(count - len(found))

    def _file(self, group: Group) -> None:
        name = group.prompt.prompt_id
        good = [sample for sample in group.samples if self._succeeded(sample)]
        if len(good) == len(group.samples):
            self.retired[name] = None
            self.put(name, [])
            self.rows.drop([name])
        if name in self.retired:
            return
        stored = list(self.stored.get(name, ()))
        for sample in good:
            if not any(torch.equal(sample.response_ids, s.response_ids) for s in stored):
                stored.append(sample)
        if stored:
            kept = stored[-self.config.per_prompt :]
            self.put(name, kept)
            self._count(name, len(good), _newest(kept))

    def _count(self, name: str, successes: int, newest: int) -> None:
        """Put a prompt into a bucket."""
        if name not in self.rows:
            self.rows.put([name], successes=successes, newest=newest)
        place = self.rows.place(name)
        self.rows["successes"][place], self.rows["newest"][place] = successes, newest


def _newest(stored: Sequence[Sample]) -> int:
    """The oldest weights of the youngest response; NO_TOKEN if one has no token."""
    versions = [version_number(oldest_version([sample])) for sample in stored]
    return NO_TOKEN if NO_TOKEN in versions else max(versions)


def _numbered(values: Ints) -> tuple[list[int], Ints]:
    """The different values, in the order in which they come, and where in that list each stands."""
    counts = np.bincount(values)
    keys = sorted(np.flatnonzero(counts).tolist(), key=lambda key: int(np.argmax(values == key)))
    number = np.zeros(len(counts), dtype=np.int64)
    number[keys] = np.arange(len(keys))
    return keys, number[values]
