"""Replay of what the current policy would write itself (ARB)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from buffers.rows import Floats, Ints
from buffers.selection import allowed, smallest, tiers_of
from buffers.stock import Stock, StockConfig
from buffers.storage import Stored
from rlkit.batch import Group, Sample, Score
from rlkit.interfaces import State
from rlkit.registry import register


class AdaptiveConfig(StockConfig):
    """Settings of the score and of the draw."""

    score: Literal["logp", "log_ratio"] = "logp"
    """Mean over a response's tokens of log pi, as the source; or of log pi - log mu, our addition:
    log pi alone prefers texts of low entropy, however old."""
    temperature: Annotated[float, Field(gt=0)] = 0.2
    """What a difference of scores is divided by, alpha. The source prints 5 per action dimension of
    a control task and lists 0.2 to 2; 0.2 is our choice, since responses differ by tenths of a nat
    per token."""
    score_min: float = -12.0
    """Scores below are raised to it."""
    score_max: float = 7.0
    """Scores above are lowered to it; log pi never reaches the source's 7."""
    refresh_every: Annotated[int, Field(ge=1)] = 5
    """Training steps between two scorings of the whole buffer, one forward each. The source's 1000
    steps make a transition each, whereas ours make a batch of responses; 5 is our choice."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.score_min >= self.score_max:
            raise ValueError(f"score_min={self.score_min} must be below score_max={self.score_max}")
        return self


def response_score(sample: Sample, score: Score, config: AdaptiveConfig) -> float:
    """clip(mean_t log pi(y_t), score_min, score_max), or the mean of log pi - log mu.

    Over the policy's own tokens; 0 for a response without one.
    """
    value = score.logp
    if config.score == "log_ratio":
        value = value - sample.behavior_logp
    own = value[sample.loss_mask]
    mean = float(own.mean()) if len(own) else 0.0
    return min(max(mean, config.score_min), config.score_max)


def group_scores(
    groups: Iterable[Sequence[Sample]], scores: Mapping[int, Score], config: AdaptiveConfig
) -> list[float]:
    """L_g = mean_i (l_i - max_j l_j), the maximum over all responses of all groups."""
    found = [[response_score(s, scores[s.sample_id], config) for s in group] for group in groups]
    highest = max(max(row) for row in found)
    return [sum(row) / len(row) - highest for row in found]


@register("buffer", "adaptive")
class Adaptive(Stock[AdaptiveConfig]):
    """Replays whole groups, more often the likelier they are under the current policy.

        l_i = clip(mean_t log pi(y_i,t), score_min, score_max)
        L_g = mean_i (l_i - max over the buffer of l),  w_g = exp(L_g / temperature)

    Groups are drawn with P_g = w_g / sum w. Every `refresh_every` steps the current policy scores
    all usable stored responses; until then a new group weighs 1, the most a group can. The oldest
    groups leave when `capacity` is reached. Source: ARB (arXiv:2512.10510). Status: adapted from
    continuous control. A response takes the place of ARB's transition, its length that of the
    action's dimension, and a group that of a trajectory. The draw is without replacement inside a
    step, ARB's with. ARB leaves out the density's factor 1/sigma, which tokens do not have.

    Public code: song970407/ARB; its Cal-QL script has temperature 5, bounds -12 and 7, 1000 steps.
    """

    sources = ("2512.10510",)

    columns: ClassVar[Mapping[str, type]] = {"score": np.float64}

    def __init__(self, config: AdaptiveConfig | None = None) -> None:
        super().__init__(config)
        self.wanted: dict[int, list[Sample]] = {}
        """The id of a group's first response -> its responses, for the refresh under way."""

    @property
    def scores(self) -> dict[int, float]:
        """The id of a stored group's first response -> L_g of the last refresh, if it had one."""
        scored = ~np.isnan(self.rows["score"])
        names, found = self.rows["first"][scored], self.rows["score"][scored]
        return dict(zip(names.tolist(), found.tolist(), strict=True))

    def numbers(
        self, stored: Sequence[Stored], advantage: Sequence[Sequence[float]]
    ) -> dict[str, object]:
        """No score yet."""
        return {"score": np.nan}

    def scores_wanted(self, step: int) -> list[Sample]:
        """Every usable stored response in the steps of a refresh."""
        self.wanted = {}
        if step % self.config.refresh_every == 0:
            usable = self.rows["stored"][allowed(self.rows["oldest"], step, self.config)]
            self.wanted = {item.sample_ids[0]: item.group.samples for item in usable}
        return [sample for group in self.wanted.values() for sample in group]

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Take the scores of a refresh; those of trained responses change nothing."""
        if self.wanted:
            found = group_scores(self.wanted.values(), scores, self.config)
            self._renew(dict(zip(self.wanted, found, strict=True)))
        self.wanted = {}

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups and at most as many replayed ones as the batch has places left."""
        rng, trained = self.rng(step), list(fresh)
        places = batch - self.fresh_share(batch)
        for tier in tiers_of(self.rows["oldest"], step, self.config):
            drawn = self._draw(tier, places, rng)
            trained += self.use(drawn, step)
            places -= len(drawn)
        return trained

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's groups; forget what the next step may not replay, then the oldest."""
        self.keep(fresh, step)
        self.evict(step + 1)

    def stats(self) -> dict[str, float]:
        """The stock's figures, and the mean weight of a stored group."""
        weights = np.exp(self._log_weights())
        return super().stats() | {"weight_mean": float(weights.sum()) / max(1, len(weights))}

    def clear(self) -> None:
        """Forget every group and its score."""
        super().clear()
        self.wanted = {}

    def state_dict(self) -> State:
        """The entries and their scores."""
        scores = self.scores
        return {**super().state_dict(), "scored": list(scores), "scores": list(scores.values())}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict(state)
        self._renew(dict(zip(state["scored"], state["scores"], strict=True)))

    def _renew(self, scores: Mapping[int, float]) -> None:
        names = self.rows["first"].tolist()
        self.rows["score"][:] = [scores.get(name, np.nan) for name in names]

    def _draw(self, tier: Ints, count: int, rng: np.random.Generator) -> Ints:
        # The largest of log w + Gumbel noise are a draw by w without replacement, also where
        # exp(L / temperature) would be 0.
        noisy = self._log_weights()[tier] + rng.gumbel(size=len(tier))
        return tier[smallest(-noisy, count)]

    def _log_weights(self) -> Floats:
        """log w of each stored group; 0 without a score."""
        score = self.rows["score"]
        log_weights: Floats = np.where(np.isnan(score), 0.0, score) / self.config.temperature
        return log_weights
