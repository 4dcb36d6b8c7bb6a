"""Several tries at a reasoning-gym problem."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from rlkit.environments.local import Local
from rlkit.errors import UserError
from rlkit.interfaces import Observation, PartConfig, Start
from rlkit.registry import register
from rlkit.rewards.pool import WorkerPool
from rlkit.tasks.gym_worker import pack
from rlkit.tasks.reasoning_gym import extract


class ReasoningGymTriesConfig(PartConfig):
    """Settings of several tries."""

    tries: Annotated[int, Field(ge=1)] = 3
    """Answers that a response may give; the episode ends with the first one that is right."""
    answer_format: Literal["raw", "last_number", "tag"] = "raw"
    """What of a turn is scored, as in task=reasoning_gym."""
    feedback: str = "That is not right. Try again."
    """What the policy is told after an answer that scores below 1. `{score}` in it is the score."""
    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the reward is multiplied with for every try after the first."""
    timeout: Annotated[float, Field(gt=0)] = 5.0
    """Seconds to score one answer; one that takes longer gets 0."""


@dataclass
class Tried:
    """What is known of an episode."""

    entry: Mapping[str, Any]
    tries: int = 0
    score: float = 0.0


def discounted(score: float, tries: int, discount: float) -> float:
    """score * discount^(tries - 1): what the last of some tries is worth."""
    return score * discount ** max(0, tries - 1)


@register("environment", "reasoning_gym")
class ReasoningGymTries(Local[Tried, ReasoningGymTriesConfig]):
    """Feedback on an answer to a reasoning-gym problem, and another try (arXiv:2505.24760).

    For `task=reasoning_gym`. The reward of an episode is the data set's score of its last answer,
    times discount^(tries - 1). There are no tools: a turn is an answer.
    """

    sources = ("2505.24760",)
    call_format = "none"

    def __init__(self, config: ReasoningGymTriesConfig | None = None) -> None:
        super().__init__(config)
        self._pools: dict[str, WorkerPool] = {}
        self._pools_lock = threading.Lock()

    @property
    def scores(self) -> bool:
        """It always does."""
        return True

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError for rows of another task."""
        for row in rows[:1]:
            data_set(row)

    def started(self, start: Start) -> tuple[Tried, str | None]:
        """No try yet."""
        data_set(start.row)
        return Tried(start.row["entry"]), None

    def answered(self, state: Tried, text: str) -> Observation:
        """Score an answer, and say so if it is wrong and a try is left."""
        c = self.config
        said = self.context.parse(text, ())
        state.tries += 1
        state.score = self._score(state.entry, extract(said.content, c.answer_format))
        counts = {"void_turns": int(not said.content.strip())}
        if state.score >= 1 or state.tries >= c.tries:
            return Observation(said=said.message, done=True, counts=counts)
        told = c.feedback.replace("{score}", f"{state.score:g}")
        return Observation(
            said=said.message, messages=[{"role": "user", "content": told}], counts=counts
        )

    def rewards(self, episodes: Sequence[int]) -> list[float | None]:
        """The discounted score of each episode's last answer."""
        return [discounted(s.score, s.tries, self.config.discount) for s in self.held(episodes)]

    def close(self) -> None:
        """End the scoring processes."""
        with self._pools_lock:
            for pool in self._pools.values():
                pool.close()

    def _score(self, entry: Mapping[str, Any], text: str | None) -> float:
        name, limit = entry["metadata"]["source_dataset"], self.config.timeout
        with self._pools_lock:
            if name not in self._pools:
                params = json.dumps({"seed": 0, "size": 1})
                self._pools[name] = WorkerPool("rlkit.tasks.gym_worker", [name, params], 1)
            pool = self._pools[name]
        item = {"entry": pack(entry), "text": text, "alarm": 2 * limit + 1}
        (verdict,) = pool.judge([item], limit)
        if verdict.kind == "error":
            raise UserError(f"the scorer of reasoning-gym's {name} failed: {verdict.detail}")
        return verdict.score or 0.0


def data_set(row: Mapping[str, Any]) -> str:
    """The name of the data set of a row. Raises UserError if it is no reasoning-gym problem."""
    entry = row.get("entry")
    if not isinstance(entry, Mapping) or "source_dataset" not in entry.get("metadata", {}):
        raise UserError("environment=reasoning_gym reads the problems of task=reasoning_gym alone")
    name: str = entry["metadata"]["source_dataset"]
    return name
