"""What a step logs of episodes with an environment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rlkit.interfaces import COUNTS
from rlkit.rollout.base import Generation
from rlkit.rollout.played import OBSERVED, RESTARTED, TURNS

NAMES = {
    "calls": "tools/calls",
    "failed_calls": "tools/failures",
    "unparsable": "tools/unparsable",
    "timeouts": "tools/timeouts",
    "lost": "tools/lost",
    RESTARTED: "tools/restarted",
    "void_turns": "turns/void",
    OBSERVED: "turns/observation_tokens",
}
"""What the counts of an episode are called among the metrics, each as a mean per response."""


@dataclass
class TurnTally:
    """Counts of a step's responses in turns. Without an environment it stays empty."""

    turns: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    rewards: dict[int, list[float]] = field(default_factory=dict)
    """By the number of turns."""

    def count(self, generation: Generation, total: float | None) -> None:
        """Count a response with its reward, if an environment had to do with it."""
        played = generation.played
        if played is None:
            return
        self.turns.append(played.counts[TURNS])
        self.counts.update(played.counts)
        self.ends[generation.finish_reason] += 1
        if total is not None:
            self.rewards.setdefault(played.counts[TURNS], []).append(total)

    def metrics(self) -> dict[str, float]:
        """turns/* and tools/*: means per response, shares of the ways to end, rewards by turns."""
        n = len(self.turns)
        if not n:
            return {}
        out = {"turns/mean": sum(self.turns) / n, "turns/max": float(max(self.turns))}
        own = {
            name: f"turns/{name}" for name in self.counts if name not in (*COUNTS, *NAMES, TURNS)
        }
        out |= {key: self.counts[name] / n for name, key in (NAMES | own).items()}
        out |= {f"turns/ended_{reason}": count / n for reason, count in self.ends.items()}
        return out | {
            f"turns/reward_{number}": sum(values) / len(values)
            for number, values in self.rewards.items()
        }
