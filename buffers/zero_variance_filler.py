"""Replay in place of groups that would teach nothing (TRL's replay buffer trainer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from buffers.replay import AgeConfig
from buffers.rows import Ints, Rows
from buffers.selection import add_groups, allowed, tiers_of
from buffers.storage import group_from_state, group_state, plain
from rlkit.batch import Group, Score
from rlkit.interfaces import ReplayBuffer, State
from rlkit.registry import register


class ZeroVarianceFillerConfig(AgeConfig):
    """Settings of the store."""

    capacity: Annotated[int, Field(ge=1)] = 64
    """Stored groups."""


def differs(group: Group) -> bool:
    """Whether the rewards of a group differ, so that it has an advantage other than 0."""
    rewards = [sample.reward for sample in group.samples]
    return max(rewards) > min(rewards)


def group_score(advantages: Sequence[float], rewards: Sequence[float]) -> float:
    """sum_i |A_i| * std(rewards), with the unbiased standard deviation."""
    return float(np.abs(advantages).sum() * np.std(rewards, ddof=1))


@register("buffer", "zero_variance_filler")
class ZeroVarianceFiller(ReplayBuffer[ZeroVarianceFillerConfig]):
    """Fresh groups whose rewards do not differ are replaced by stored ones that taught much.

        score = sum_i |A_i| * std(rewards),  P_g proportional to score_g

    Every place of the batch is generated. Of the groups whose rewards differ, those with the best
    scores of the step that generated them are kept, of equal ones the older; they stay when they
    are drawn. The draw is without replacement, and what cannot be replaced stays. Source: TRL's
    experimental GRPO with a replay buffer; no paper. Status: adapted. TRL stores a step's groups
    before it draws, so that a group may be trained twice in a step, and draws with replacement when
    the store is too small; here no group is trained twice in a step. Advantages are recomputed, TRL
    stores them. Groups of score 0, which no draw could give, are not kept; `max_age` is ours.

    Public code: huggingface/trl, trl/experimental/grpo_with_replay_buffer.
    """

    sources = ()
    keeps_columns = True

    def __init__(self, config: ZeroVarianceFillerConfig | None = None) -> None:
        super().__init__(config)
        self.rows = Rows(group=object, score=np.float64, oldest=np.int64, responses=np.int64)
        """The stored groups, best score first, with the oldest weights that sampled a token, or
        NO_TOKEN."""
        self.pending: list[Group] = []
        """This step's groups whose rewards differ, until their advantages are known."""

    @property
    def stored(self) -> list[Group]:
        """The stored groups, best score first."""
        return self.rows.listed("group")

    @property
    def scores(self) -> list[float]:
        """The score of each."""
        return self.rows.listed("score")

    def replays(self, batch: int) -> bool:
        """Stored groups take the places of fresh ones."""
        return True

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups, the first flat ones replaced by stored groups while there are any."""
        flat = [place for place, group in enumerate(fresh) if not differs(group)]
        rng, drawn = self.rng(step), list[int]()
        for tier in tiers_of(self.rows["oldest"], step, self.config):
            drawn += self._draw(tier, len(flat) - len(drawn), rng)
        trained = list(fresh)
        for place, index in zip(flat, drawn, strict=False):
            trained[place] = self.rows["group"][index]
        return trained

    def add(self, fresh: list[Group], step: int) -> None:
        """Hold this step's groups whose rewards differ, for `observe`; forget those over age.

        Raises UserError when a prompt's columns are no plain values, which no checkpoint could
        keep.
        """
        for group in fresh:
            plain(group.prompt.columns, "")
        self.pending = [group for group in fresh if differs(group)]
        self.rows.keep(allowed(self.rows["oldest"], step + 1, self.config))

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Store the held groups by their advantages; forget those of the lowest scores.

        A group whose update was skipped has no advantages and is not stored.
        """
        found: list[tuple[Group, float]] = []
        for group in self.pending:
            if any(sample.sample_id not in scores for sample in group.samples):
                continue  # its update was skipped
            advantages = [scores[sample.sample_id].advantage for sample in group.samples]
            score = group_score(advantages, [sample.reward for sample in group.samples])
            if score > 0:
                found.append((group, score))
        self.pending = []
        if found:
            groups, best = zip(*found, strict=True)
            add_groups(self.rows, groups, score=best)
            order = np.argsort(-self.rows["score"], kind="stable")
            self.rows.take(order[: self.config.capacity])

    def stats(self) -> dict[str, float]:
        """Stored groups, and their mean score."""
        count = len(self.rows)
        mean = float(self.rows["score"].sum()) / max(1, count)
        return {"groups": float(count), "score_mean": mean}

    def clear(self) -> None:
        """Forget every group."""
        self.rows.clear()
        self.pending = []

    def __len__(self) -> int:
        return int(self.rows["responses"].sum())

    def state_dict(self) -> State:
        """The stored groups and their scores."""
        return {"groups": [group_state(g) for g in self.stored], "scores": self.scores}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.clear()
        groups = [group_from_state(group) for group in state["groups"]]
        add_groups(self.rows, groups, score=state["scores"])

    def _draw(self, places: Ints, count: int, rng: np.random.Generator) -> list[int]:
        count = min(count, len(places))
        if count == 0:
            return []
        score = self.rows["score"][places]
        drawn: list[int] = rng.choice(places, count, replace=False, p=score / score.sum()).tolist()
        return drawn
