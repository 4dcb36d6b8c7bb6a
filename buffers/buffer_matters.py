"""Batches of fresh groups, once-hard prompts and recent good groups ("Buffer Matters", BAPO)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from buffers.replay import AgeConfig
from buffers.rows import Rows
from buffers.selection import add_groups, tiers_of
from buffers.storage import group_from_state, group_state, plain
from rlkit.batch import Group, Request
from rlkit.interfaces import PromptSource, ReplayBuffer, State
from rlkit.registry import register

Share = Annotated[float, Field(ge=0, le=1)]


class BufferMattersConfig(AgeConfig):
    """Settings of the three parts of a batch; thresholds are (at a mean reward of 0, at 1)."""

    c1: tuple[Share, Share] = (0.125, 0.125)
    """Prompts are hard up to this mean reward, and are trained when re-sampled above it."""
    c2: tuple[Share, Share] = (0.125, 0.5)
    """Least mean reward of a group that is kept for replay."""
    c3: tuple[Share, Share] = (0.25, 0.625)
    """Greatest mean reward of a group that is kept for replay."""
    resample_every: Annotated[int, Field(ge=1)] = 1
    """Hard prompts are answered again in every m-th step; the code's default, its scripts take 2
    and 5."""
    resample_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Most of a batch's places that hard prompts take; the code re-samples up to 256 beside 1024
    prompts."""
    hard_capacity: Annotated[int, Field(ge=1)] = 256
    """Hard prompts that wait; the oldest leave. The paper's is about one batch."""
    window: Annotated[int, Field(ge=1)] = 3
    """How many earlier steps' groups are kept for replay."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if any(low > high for low, high in zip(self.c2, self.c3, strict=True)):
            raise ValueError(f"c2={list(self.c2)} must not be above c3={list(self.c3)}")
        return self


def threshold(ends: tuple[float, float], mean_reward: float) -> float:
    """c_i = r_tot (c_i^max - c_i^min) + c_i^min."""
    low, high = ends
    return mean_reward * (high - low) + low


def group_mean(group: Group) -> float:
    """The mean reward of a group."""
    return sum(sample.reward for sample in group.samples) / len(group.samples)


def is_informative(group: Group) -> bool:
    """1/G <= mean reward <= (G - 1)/G: under 0/1 rewards, some responses succeed and some fail."""
    size = len(group.samples)
    return 1 / size <= group_mean(group) <= (size - 1) / size


@register("buffer", "buffer_matters")
class BufferMatters(ReplayBuffer[BufferMattersConfig]):
    """A batch of informative fresh groups, hard prompts answered again, and recent good groups.

        X1: fresh groups with 1/G <= mean <= (G-1)/G
        X2: hard prompts, answered again, with a new mean in (c1, 1)
        X3: min(|B_high|, B - |X1| - |X2|) groups of the last steps with mean in [c2, c3], at random

    A prompt is hard while its latest mean is in [0, c1]; one that stays hard goes to the end of the
    queue. c_i = r_tot (c_i^max - c_i^min) + c_i^min, r_tot the mean reward of all responses so far,
    each step's included after it was trained; rewards are taken to lie in 0..1. If nothing is left
    the fresh groups are trained, whose advantages are zero. Source: "Buffer Matters" BAPO
    (arXiv:2602.20722), not the BAPO of adaptive clipping. Status: adapted. Hard prompts take places
    of new prompts, at most `resample_fraction` of them, so that a step generates no more than its
    batch; the paper answers them in addition. A group is filed for replay by the thresholds of the
    step that made it. The code's optional filter on fresh groups, the loss and the lagged rollout
    policy are not a buffer's job.

    Public code: the authors' BAPO-ICLR2026; the defaults are its own.
    """

    sources = ("2602.20722",)
    keeps_columns = True

    def __init__(self, config: BufferMattersConfig | None = None) -> None:
        super().__init__(config)
        self.hard: OrderedDict[str, None] = OrderedDict()
        """Ids of the hard prompts, the longest waiting first."""
        self.rows = Rows(group=object, step=np.int64, oldest=np.int64, responses=np.int64)
        """Groups of the last steps, oldest first, with their step and the oldest weights that
        sampled a token, or NO_TOKEN."""
        self.reward_sum, self.responses = 0.0, 0
        self.planned = -1
        """The last step that was planned."""
        self.resampled: list[str] = []
        """The hard prompts of the step under way."""

    @property
    def mean_reward(self) -> float:
        """r_tot; 0 before the first step."""
        return self.reward_sum / max(1, self.responses)

    @property
    def high(self) -> list[Group]:
        """Groups of the last steps, oldest first."""
        return self.rows.listed("group")

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """In every m-th step the longest waiting hard prompts, then new ones.

        Asked again in the same step, only new ones.
        """
        hard: list[str] = []
        if step != self.planned:
            self.planned = step
            self.resampled = hard = self._choose(batch, step)
        asked = [prompts.get(name) for name in hard] + prompts.take(batch - len(hard))
        return [Request(prompt=prompt, n=prompts.num_generations) for prompt in asked]

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """X1, X2 and X3; the fresh groups if all three are empty."""
        trained = [group for group in fresh if self._teaches(group)]
        rng = self.rng(step)
        for tier in tiers_of(self.rows["oldest"], step, self.config):
            places = tier[rng.permutation(len(tier))[: batch - len(trained)]]
            trained += self.rows["group"][places].tolist()
        return trained or fresh

    def add(self, fresh: list[Group], step: int) -> None:
        """Queue hard prompts and keep good groups; forget the oldest of both.

        Raises UserError when a prompt's columns are no plain values, which no checkpoint could
        keep.
        """
        for group in fresh:
            plain(group.prompt.columns, "")
            self.reward_sum += sum(sample.reward for sample in group.samples)
            self.responses += len(group.samples)
        self.resampled = []
        c1, c2, c3 = self._thresholds()
        for group in fresh:
            self.hard.pop(group.prompt.prompt_id, None)
            if group_mean(group) <= c1:
                self.hard[group.prompt.prompt_id] = None
        while len(self.hard) > self.config.hard_capacity:
            self.hard.popitem(last=False)
        self._store([group for group in fresh if c2 <= group_mean(group) <= c3])
        self.rows.keep(self.rows["step"] > step - self.config.window)

    def stats(self) -> dict[str, float]:
        """Hard prompts, groups kept for replay, and r_tot."""
        return {
            "hard": float(len(self.hard)),
            "groups": float(len(self.rows)),
            "mean_reward": self.mean_reward,
        }

    def clear(self) -> None:
        """Forget the hard prompts, the groups and the mean reward."""
        self.hard = OrderedDict()
        self.rows.clear()
        self.reward_sum, self.responses = 0.0, 0
        self.planned, self.resampled = -1, []

    def __len__(self) -> int:
        return int(self.rows["responses"].sum())

    def state_dict(self) -> State:
        """The hard prompts, the groups and what the mean reward is made of."""
        return {
            "hard": list(self.hard),
            "groups": [group_state(group) for group in self.high],
            "reward_sum": self.reward_sum,
            "responses": self.responses,
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.clear()
        self.hard = OrderedDict.fromkeys(state["hard"])
        self._store([group_from_state(group) for group in state["groups"]])
        self.reward_sum, self.responses = state["reward_sum"], state["responses"]

    def _choose(self, batch: int, step: int) -> list[str]:
        if step % self.config.resample_every:
            return []
        places = math.floor(self.config.resample_fraction * batch + 1e-9)
        return list(islice(self.hard, places))

    def _store(self, groups: Sequence[Group]) -> None:
        add_groups(self.rows, groups, step=[group.samples[0].step for group in groups])

    def _thresholds(self) -> tuple[float, float, float]:
        c1, c2, c3 = self.config.c1, self.config.c2, self.config.c3
        mean = self.mean_reward
        return threshold(c1, mean), threshold(c2, mean), threshold(c3, mean)

    def _teaches(self, group: Group) -> bool:
        if group.prompt.prompt_id in self.resampled:
            return self._thresholds()[0] < group_mean(group) < 1
        return is_informative(group)
