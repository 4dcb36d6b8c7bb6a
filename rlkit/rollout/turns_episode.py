"""One response in several turns, while it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import Prompt, Request
from rlkit.interfaces import COUNTS, Message, Observation, Start
from rlkit.rollout.base import Generation
from rlkit.rollout.partial import BLANK, OPEN, extended
from rlkit.rollout.played import OBSERVED, RESTARTED, TURNS, Played


@dataclass(slots=True, kw_only=True)
class Episode:
    """A prompt, the tokens that follow it so far, and whose they are.

    What the policy samples keeps its tokens, log-probs and versions as the engine returned them.
    What the environment says becomes tokens once, with log-prob 0 and the version of the token
    before it, which says nothing: it only leaves the age of the response as it is.
    """

    number: int
    """That of its random draws, and of its place among all responses of the call."""
    start: Start
    prompt: Prompt
    """With what the environment added to it."""
    longest: int
    """Most tokens of the whole response."""
    added: bool = False
    """Whether it added anything."""
    so_far: Generation = BLANK
    """Open until the episode ends."""
    last: Generation = BLANK
    """The policy's last turn."""
    turn: Generation = BLANK
    """The turn that it is at, if a part of it is sampled."""
    turns: list[Tensor] = field(default_factory=list)
    """The number of the policy's turn for each token, in pieces; 0 for what it was shown."""
    messages: list[Message] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((TURNS, RESTARTED, *COUNTS), 0)
    )
    states: list[int] = field(default_factory=list)
    """The number of the state in which each turn was, or is to be, taken."""
    earned: list[float | None] = field(default_factory=list)
    """What each turn that was answered earned, None without rewards per turn."""
    begun: float = 0.0
    """When, in seconds of some clock."""

    @property
    def id(self) -> int:
        """The environment's name for it."""
        return self.start.episode

    @property
    def live(self) -> bool:
        """Whether it goes on."""
        return self.so_far.finish_reason == OPEN

    @property
    def length(self) -> int:
        """Tokens of the response so far."""
        return len(self.so_far.response_ids)

    @property
    def whole(self) -> Generation:
        """The response so far, with the turn that it is at."""
        begun = len(self.turn.response_ids) > 0
        return extended(self.so_far, self.turn, OPEN) if begun else self.so_far

    @property
    def own_tokens(self) -> int:
        """Tokens so far that the policy sampled."""
        return sum(int((part > 0).sum()) for part in self.turns) + len(self.turn.response_ids)

    @property
    def request(self) -> Request:
        """What the next turn is sampled after, and how many tokens it may have."""
        prompt, begun = self.prompt, self.turn.response_ids
        if self.length:
            prompt = replace(prompt, ids=torch.cat([prompt.ids, self.so_far.response_ids]))
        room = self.longest - self.length - len(begun)
        return Request(prompt=prompt, n=1, prefix=begun, max_tokens=room)

    def says(self, turn: Generation) -> None:
        """The policy's turn, which stays as it was sampled."""
        self.so_far, self.last, self.turn = extended(self.so_far, turn, OPEN), turn, BLANK
        self.counts[TURNS] += 1
        self.turns.append(torch.full((len(turn.response_ids),), self.counts[TURNS]))

    def takes(self, observation: Observation) -> None:
        """Note the policy's turn as the environment read it, and what happened."""
        self.messages.append(observation.said)
        for name, count in observation.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def hears(self, messages: Sequence[Message], ids: Sequence[int]) -> None:
        """What the environment says, and its tokens."""
        self.messages += messages
        before = self.so_far
        shown = Generation(
            response_ids=torch.tensor(ids, dtype=torch.int64),
            logp=torch.zeros(len(ids)),
            policy_version=before.policy_version[-1].repeat(len(ids)),
            finish_reason=OPEN,
            extras=blank(before.extras, len(ids)),
        )
        self.so_far = extended(before, shown, OPEN)
        self.turns.append(torch.zeros(len(ids), dtype=torch.int64))

    def ends(self, reason: str) -> None:
        """It ends here."""
        self.so_far = replace(self.so_far, finish_reason=reason)

    def finished(self, reward: float | None, handle: Any) -> Generation:
        """The response, with what the environment made of it."""
        turn = torch.cat(self.turns)
        mask = turn > 0
        spoken = self.counts[TURNS]
        earned = [value or 0.0 for value in self.earned] + [0.0] * (spoken - len(self.earned))
        counts = {**self.counts, OBSERVED: int((~mask).sum())}
        played = Played(
            loss_mask=mask,
            asked=self.prompt.text_or_messages,
            prompt_ids=self.prompt.ids if self.added else None,
            messages=tuple(self.messages),
            reward=reward,
            counts=counts,
            turn=turn,
            states=tuple(self.states[:spoken]),
            earned=None if all(value is None for value in self.earned) else tuple(earned),
            handle=handle,
        )
        return replace(self.so_far, played=played)


def together(requests: Sequence[Request]) -> list[Request]:
    """Neighbors that read the same prompt as one request for several responses.

    An engine then reads the prompt once.
    """
    out: list[Request] = []
    for request in requests:
        if out and alike(out[-1], request):
            out[-1] = replace(out[-1], n=out[-1].n + request.n)
        else:
            out.append(request)
    return out


def alike(one: Request, other: Request) -> bool:
    """Whether both begin a response to one prompt, with as many tokens at most."""
    bare = not len(one.prefix) and not len(other.prefix)
    return bare and one.prompt is other.prompt and one.max_tokens == other.max_tokens


def blank(extras: Mapping[str, Tensor | float], count: int) -> dict[str, Tensor | float]:
    """A response's extras for tokens that nobody sampled: 0 per token, such as log 1 kept mass."""
    return {
        name: torch.zeros(count, dtype=value.dtype) if isinstance(value, Tensor) else value
        for name, value in extras.items()
    }
