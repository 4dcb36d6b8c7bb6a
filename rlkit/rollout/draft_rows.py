"""A response that may begin with a draft, what ends it, and what the metrics say of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from rlkit.batch import Request
from rlkit.rollout.base import Generation
from rlkit.rollout.partial import BLANK, OPEN
from rlkit.rollout.stops import Stops, contain
from rlkit.rollout.visits import UNKNOWN, Stored


@dataclass(slots=True)
class Row:
    """One response that is asked for."""

    number: int
    """Its place among all responses of the call, and that of its draws."""
    request: Request
    draft: Stored | None
    """None = there is none."""
    uniform: Tensor = UNKNOWN
    """[T] float64, the numbers for the draft's places."""
    so_far: Generation = BLANK
    """What is kept of the draft, with the token that took the place of the first other one."""
    kept: int = 0
    """Tokens of the draft that are kept."""


@dataclass(slots=True)
class Counts:
    """What happened since the metrics were asked for."""

    responses: int = 0
    drafts: int = 0
    tokens: int = 0
    """Of all responses."""
    kept: int = 0
    """Of these, the tokens taken from a draft."""
    generated: int = 0
    """Of these, the tokens that the engine generated one after the other."""
    saved: int = 0
    """Decoding steps that the longest response of each call would have taken beyond those of the
    longest continuation."""
    seconds: float = 0.0

    def metrics(self, stored: int) -> dict[str, float]:
        """The same by name; nothing if nothing was generated."""
        if not self.responses:
            return {}
        return {
            "rollouts/draft_found_fraction": self.drafts / self.responses,
            "rollouts/draft_kept_fraction": self.kept / max(1, self.tokens),
            "rollouts/draft_kept_mean": self.kept / max(1, self.drafts),
            "rollouts/draft_generated_tokens": self.generated,
            "rollouts/draft_steps_saved": self.saved,
            "rollouts/draft_stored_tokens": stored,
            "time/draft": self.seconds,
        }


@dataclass(slots=True)
class Ends:
    """What ends a response of the run."""

    tokens: frozenset[int] = frozenset()
    stops: Stops = field(default_factory=lambda: Stops.of((), {}))
    tokenizer: Any = None

    def after(self, ids: Tensor) -> bool:
        """Whether a response ends with its last token."""
        if int(ids[-1]) in self.tokens:
            return True
        return any(
            contain(self.tokenizer, [ids.tolist()], texts, skip)[0]
            for texts, skip in self.stops.searched
        )


def beginning(response: Generation, count: int) -> Generation:
    """The first tokens of a response, each as it was sampled; the rest is open."""
    return replace(
        response,
        response_ids=response.response_ids[:count].clone(),
        logp=response.logp[:count].clone(),
        policy_version=response.policy_version[:count].clone(),
        finish_reason=OPEN,
        extras={
            name: value[:count].clone() if isinstance(value, Tensor) else value
            for name, value in response.extras.items()
        },
    )


def to_continue(live: Sequence[Row]) -> list[Request]:
    """The requests for what follows; neighbors without a draft share one, and its forward."""
    asked: list[Request] = []
    before: Row | None = None
    for row in live:
        new = row.draft is None
        if new and before is not None and before.draft is None and before.request is row.request:
            asked[-1] = replace(asked[-1], n=asked[-1].n + 1)
        elif new:
            asked.append(replace(row.request, n=1, demonstrations=()))
        else:
            prefix = row.so_far.response_ids
            asked.append(Request(prompt=row.request.prompt, n=1, prefix=prefix))
        before = row
    return asked
