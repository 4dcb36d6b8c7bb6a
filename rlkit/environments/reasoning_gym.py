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
from rlkit.interfaces import Observation, PartConfig, Said, Start
from rlkit.registry import register
from rlkit.rewards.pool import Verdict
from rlkit.tasks.gym_scorer import GymScorer
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
    """Seconds to score one answer; one that takes longer gets 0 and is counted in
    tools/timeouts."""


@dataclass
class Tried:
    """What is known of an episode."""

    entry: Mapping[str, Any]
    data_set: str
    """Its name and settings, as JSON."""
    tries: int = 0
    score: float | None = 0.0


def discounted(score: float | None, tries: int, discount: float) -> float | None:
    """score * discount^(tries - 1): what the last of some tries is worth; None without a score."""
    return None if score is None else score * discount ** max(0, tries - 1)


@register("environment", "reasoning_gym")
class ReasoningGymTries(Local[Tried, ReasoningGymTriesConfig]):
    """Feedback on an answer to a reasoning-gym problem, and another try (arXiv:2505.24760).

    For `task=reasoning_gym`. The reward of an episode is the data set's score of its last answer,
    times discount^(tries - 1). There are no tools: a turn is an answer. An answer whose scoring
    process died twice ends the episode without a reward, counted in tools/lost.
    """

    sources = ("2505.24760",)
    call_format = "none"

    def __init__(self, config: ReasoningGymTriesConfig | None = None) -> None:
        super().__init__(config)
        self._scorers: dict[str, GymScorer] = {}
        self._scorers_lock = threading.Lock()

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
        return Tried(start.row["entry"], data_set(start.row)), None

    def answered(self, state: Tried, text: str) -> Observation:
        """Score an answer, and say so if it is wrong and a try is left."""
        return self.answers([state], [text])[0]

    def answers(self, states: Sequence[Tried], turns: Sequence[str]) -> list[Observation]:
        """Score the answers of several episodes in parallel."""
        said = [self.context.parse(text, ()) for text in turns]
        verdicts = self._verdicts(states, [each.content for each in said])
        return [self._told(*row) for row in zip(states, said, verdicts, strict=True)]

    def _told(self, state: Tried, said: Said, verdict: Verdict) -> Observation:
        c = self.config
        state.tries += 1
        state.score = verdict.mark
        counts = {"void_turns": int(not said.content.strip())}
        counts |= {} if verdict.event is None else {verdict.event: 1}
        if state.score is None:
            return Observation(
                said=said.message, done=True, finish_reason="tool_error", counts=counts
            )
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
        with self._scorers_lock:
            for scorer in self._scorers.values():
                scorer.close()

    def _verdicts(self, states: Sequence[Tried], texts: Sequence[str]) -> list[Verdict]:
        """Those on the answers of each episode: the episodes of a data set go to it together."""
        found: dict[int, Verdict] = {}
        names = [state.data_set for state in states]
        answers = [extract(text, self.config.answer_format) for text in texts]
        for name in dict.fromkeys(names):
            own = [i for i, other in enumerate(names) if other == name]
            verdicts = self._scorer(name).judge(
                [states[i].entry for i in own], [answers[i] for i in own], self.config.timeout
            )
            found |= dict(zip(own, verdicts, strict=True))
        return [found[i] for i in range(len(states))]

    def _scorer(self, name: str) -> GymScorer:
        with self._scorers_lock:
            if name not in self._scorers:
                self._scorers[name] = GymScorer(*json.loads(name))
            return self._scorers[name]


def data_set(row: Mapping[str, Any]) -> str:
    """The name and settings of the data set of a row, as JSON.

    Raises UserError if it is no reasoning-gym problem.
    """
    entry = row.get("entry")
    if not isinstance(entry, Mapping) or "source_dataset" not in entry.get("metadata", {}):
        raise UserError("environment=reasoning_gym reads the problems of task=reasoning_gym alone")
    return json.dumps([entry["metadata"]["source_dataset"], row.get("params", {})], sort_keys=True)
