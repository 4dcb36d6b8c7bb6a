"""Replay of a prompt's own earlier responses beside its new ones (RePO)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from buffers.prompt_store import PromptStore
from buffers.replay import AgeConfig, by_age, sample_staleness
from rlkit.batch import Group, Sample
from rlkit.registry import register

Selector = Literal["all", "recent", "random", "highest", "max_variance"]


class RepoConfig(AgeConfig):
    """Settings of the stores, one per prompt, and of what is taken from them."""

    cache: Annotated[int, Field(ge=1)] = 16
    """Responses kept for a prompt; the oldest leave first."""
    min_cache: Annotated[int, Field(ge=1)] = 16
    """A prompt is replayed once it holds this many that its ages allow."""
    replayed: Annotated[int, Field(ge=1)] = 8
    """Responses replayed for a prompt, k."""
    selector: Selector = "recent"
    """Which ones: the newest, any, those of the highest reward, the k whose rewards vary most, or
    all that are stored, whatever k says."""
    grouping: Literal["split", "mixed"] = "split"
    """split = the replayed responses are a group of their own, with statistics of their own; mixed
    = they join the new ones of the prompt in one group."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.min_cache > self.cache:
            raise ValueError(
                f"min_cache={self.min_cache} is never reached with cache={self.cache}; "
                "raise cache or lower min_cache"
            )
        return self


def max_variance(rewards: Sequence[float], k: int) -> list[int]:
    """The k positions whose rewards vary most, in order; of equal ones the larger sum.

    Such a subset is some of the smallest and the rest of the largest, so k + 1 are compared.
    """
    order = sorted(range(len(rewards)), key=lambda i: rewards[i])
    k = min(k, len(order))
    subsets = [order[:low] + order[len(order) - (k - low) :] for low in range(k + 1)]

    def quality(subset: Sequence[int]) -> tuple[float, float]:
        values = [rewards[i] for i in subset]
        return round(float(np.var(values)), 12), sum(values)

    best = max(range(len(subsets)), key=lambda i: quality(subsets[i]))
    return sorted(subsets[best])


def select(
    stored: Sequence[Sample], k: int, selector: Selector, rng: np.random.Generator
) -> list[Sample]:
    """At most k of the stored responses, which stand oldest first; the order is kept."""
    if selector == "all":
        return list(stored)
    k = min(k, len(stored))
    if k == 0:
        return []
    if selector == "recent":
        return list(stored[len(stored) - k :])
    if selector == "random":
        places = sorted(int(i) for i in rng.choice(len(stored), size=k, replace=False))
    elif selector == "highest":
        newest_first = reversed(range(len(stored)))
        places = sorted(sorted(newest_first, key=lambda i: -stored[i].reward)[:k])
    else:
        places = max_variance([sample.reward for sample in stored], k)
    return [stored[i] for i in places]


@register("buffer", "repo")
class Repo(PromptStore[RepoConfig]):
    """Every prompt keeps its last responses; meeting it again replays k of them.

    Under `split` a replayed group takes a place of the batch beside the group it belongs to, so
    half of the places are generated, rounded up; the batch is short while prompts are new. Under
    `mixed` all places are generated and groups grow from G to G + k. Only responses of earlier
    steps are replayed, with their stored log-probs. Source: RePO (arXiv:2506.09340). Status:
    adapted: the weight of its second loss is not set here, and a prompt met twice in a step is
    replayed once.

    Public code: SihengLi99/RePO has the five selectors, cache and min_cache 16 and k = 8 beside 8
    new responses. With 8 new responses per visit, a prompt is replayed from its third visit on.
    """

    sources = ("2506.09340",)

    def fresh_share(self, batch: int) -> int:
        """Half of the batch, rounded up, under split; all of it under mixed."""
        return batch - batch // 2 if self.config.grouping == "split" else batch

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups, each followed by or merged with its prompt's replayed responses."""
        rng, config = self.rng(step), self.config
        room = batch - len(fresh) if config.grouping == "split" else len(fresh)
        trained: list[Group] = []
        done: set[str] = set()
        for group in fresh:
            name = group.prompt.prompt_id
            tiers = self._tiers(name, step)
            trained.append(group)
            if len(done) >= room or name in done or sum(map(len, tiers)) < config.min_cache:
                continue
            done.add(name)
            replayed: list[Sample] = []
            for tier in tiers:
                replayed += select(tier, config.replayed - len(replayed), config.selector, rng)
            if config.grouping == "split":
                trained.append(Group(prompt=group.prompt, samples=replayed))
            else:
                trained[-1] = Group(prompt=group.prompt, samples=[*group.samples, *replayed])
        return trained

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's responses with their prompts."""
        for group in fresh:
            name = group.prompt.prompt_id
            self.put(name, [*self.stored.get(name, ()), *group.samples][-self.config.cache :])

    def stats(self) -> dict[str, float]:
        """Prompts with a store, and those that can be replayed."""
        ready = sum(n for size, n in self.sizes.items() if size >= self.config.min_cache)
        return {"prompts": float(len(self.stored)), "ready": float(ready)}

    def _tiers(self, name: str, step: int) -> list[list[Sample]]:
        stored = self.stored.get(name, [])
        return by_age(stored, lambda sample: sample_staleness(sample, step), self.config)
