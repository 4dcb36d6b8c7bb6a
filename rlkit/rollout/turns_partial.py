"""Episodes that go on in the next training step: partial rollouts with an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rlkit.batch import Request
from rlkit.interfaces import Start, State
from rlkit.ops import stream_seed
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.packing import unpack
from rlkit.rollout.partial import BLANK, OPEN, Partial, UnderWay, extended
from rlkit.rollout.played import RESTARTED
from rlkit.rollout.source import StepPlan
from rlkit.rollout.turns import LENGTH, TurnsEngine
from rlkit.rollout.turns_episode import Episode, together
from rlkit.tasks.stream import PromptStream

NAME = "pool"
"""What the ids of its episodes, and their starts, derive from."""


@dataclass(slots=True)
class Playing(UnderWay):
    """A request and its episodes so far; `own` has what each said and heard."""

    number: int = 0
    """That of the group: its episodes start alike."""
    live: dict[int, Episode] = field(default_factory=dict)
    """Those that go on, by their place in `own`."""

    @property
    def tokens(self) -> int:
        """Tokens that the policy sampled."""
        over = sum(g.own_tokens for i, g in enumerate(self.own) if i not in self.live)
        return over + sum(episode.own_tokens for episode in self.live.values())


@dataclass(frozen=True, slots=True)
class Before:
    """What an episode was when a checkpoint was written."""

    whole: Generation
    lengths: Sequence[int]
    """Tokens of its first turn, of what it was shown then, and so on; the last turn is not over,
    and may be empty."""

    @property
    def settled(self) -> int:
        """Tokens before the turn that is not over."""
        return sum(self.lengths[:-1])

    def turn(self, number: int) -> Generation:
        """The policy's turn of a number, from 0."""
        start = sum(self.lengths[: 2 * number])
        return piece(self.whole, start, start + self.lengths[2 * number])

    def fits(self, episode: Episode) -> bool:
        """Whether an episode is on the way to it."""
        found = episode.so_far.response_ids
        return episode.live and torch.equal(found, self.whole.response_ids[: len(found)])


def piece(whole: Generation, start: int, end: int) -> Generation:
    """Tokens of a response with all that belongs to them, as a turn that ended by itself."""
    extras: Mapping[str, Tensor | float] = {
        name: value[start:end] if isinstance(value, Tensor) else value
        for name, value in whole.extras.items()
    }
    return Generation(
        response_ids=whole.response_ids[start:end],
        logp=whole.logp[start:end],
        policy_version=whole.policy_version[start:end],
        finish_reason="stop",
        extras=extras,
    )


class PartialTurns(Partial):
    """The pool of `Partial`, with episodes in place of responses.

    In a round every live episode samples at most `round_tokens` tokens, and the turns that end go
    to the environment. An episode that is not over when its step is waits in its environment, and
    goes on with the next step's weights. A checkpoint holds its tokens: a resumed run begins it
    anew and says its turns again, without sampling, which brings the environment to where it was.
    If it then answers otherwise, or if a call was made that must not be made twice, the episode is
    restarted without any token, and counted. Source: the pool is that of arXiv:2501.12599. Status:
    the rest is our choice.
    """

    engine: TurnsEngine
    pool: list[Playing]  # type: ignore[assignment]

    def __init__(self, engine: TurnsEngine, *, greedy: bool) -> None:
        super().__init__(engine, greedy=greedy)
        self.groups = 0
        """Groups begun so far; they number the starts."""
        self.number = 0
        """Episodes begun so far; they number the ids."""
        self.held: set[int] = set()
        """The episodes that the environment holds."""
        self.before: dict[int, Before] = {}
        """What resumed episodes have said and heard, until they are held again."""

    def begin(self, plan: StepPlan) -> None:
        """Record what earlier steps generated, once all of it is there."""
        self._wake()
        super().begin(plan)

    def state_dict(self) -> State:
        """The pool, with what its episodes have so far."""
        state = super().state_dict()
        for tree, group in zip(state["pool"], self.pool, strict=True):
            tree["number"] = group.number
            tree["live"] = [
                {
                    "place": place,
                    "number": episode.number,
                    "restarted": episode.counts[RESTARTED],
                    "lengths": self._lengths(episode),
                }
                for place, episode in group.live.items()
            ]
        return state | {"groups": self.groups, "number": self.number}

    def load_state_dict(self, state: State, prompts: PromptStream) -> None:
        """Restore what `state_dict` returned; the episodes begin anew in the next round."""
        self.groups, self.number = state["groups"], state["number"]
        self.planned = [Request(prompt=prompts.get(name), n=n) for name, n in state["planned"]]
        for tree in state["pool"]:
            own = unpack(tree["own"])
            request = Request(prompt=prompts.get(tree["prompt_id"]), n=len(own))
            group = Playing(request, own, number=tree["number"])
            for known in tree["live"]:
                place, number, restarted = known["place"], known["number"], known["restarted"]
                episode = self._episode(group, number, restarted)
                group.live[place] = episode
                if own[place].finish_reason == OPEN and len(own[place].response_ids):
                    self.before[episode.id] = Before(own[place], known["lengths"])
            self.pool.append(group)

    def _begun(self, request: Request) -> Playing:
        group = Playing(request, [BLANK] * request.n, number=self.groups)
        for place in range(request.n):
            group.live[place] = self._episode(group, self.number)
            self.number += 1
        self.groups += 1
        return group

    def _episode(self, group: Playing, number: int, restarted: int = 0) -> Episode:
        """An episode of a group that is not begun yet."""
        made = self._made(group, number, stream_seed(self.engine.seed, f"episode/{NAME}", number))
        made.counts[RESTARTED] = restarted
        return made

    def _made(self, group: Playing, number: int, name: int) -> Episode:
        """The episode `name`, with the start of the group and the draws of a number."""
        prompt = group.request.prompt
        start = Start(
            episode=name,
            row={**prompt.columns, "prompt": prompt.text_or_messages},
            seed=stream_seed(self.engine.seed, f"start/{NAME}", group.number),
        )
        longest = self.engine.config.max_completion_length
        return Episode(number=number, start=start, prompt=prompt, longest=longest)

    def _round(self, step: int) -> None:
        """Extend every live episode by a round."""
        self._wake()
        rows = [(group, place) for group in self.pool for place in group.live]
        live = [group.live[place] for group, place in rows]
        rooms = [episode.request for episode in live]
        most = self.engine.config.round_tokens
        asked = [replace(r, max_tokens=min(most, r.max_tokens or most)) for r in rooms]
        call = GenerationCall(
            together(asked),
            ("rollout", step, self.rounds),
            numbers=[episode.number for episode in live],
        )
        found = [one for group in self.engine.inner.generate(call) for one in group]
        self.rounds += 1
        said: list[Episode] = []
        for episode, room, request, more in zip(live, rooms, asked, found, strict=True):
            new = len(more.response_ids)
            full = more.finish_reason == LENGTH and new == request.max_tokens
            goes_on = full and new < (room.max_tokens or 0)
            episode.turn = extended(episode.turn, more, OPEN if goes_on else more.finish_reason)
            said += [] if goes_on else [episode]
        self.engine.go_on(said, [episode.turn for episode in said])
        over = [episode for episode in said if not episode.live]
        done = dict(zip([e.id for e in over], self.engine.finish(over), strict=True))
        for group, place in rows:
            episode = group.live[place]
            group.own[place] = done.get(episode.id, episode.whole)
            if episode.id in done:
                del group.live[place]
        self.held -= done.keys()

    def _wake(self) -> None:
        """Begin the episodes that the environment does not hold, and bring them to where they were.

        One that cannot be brought there is restarted.
        """
        rows = [(group, place) for group in self.pool for place in group.live]
        new = [e for e in (group.live[place] for group, place in rows) if e.id not in self.held]
        if not new:
            return
        again = self.engine.environment.again([episode.id for episode in new])
        repeats = {e.id for e, repeated in zip(new, again, strict=True) if repeated}
        self.engine.begin(new)
        self.held |= {episode.id for episode in new}
        resumed = [e for e in new if e.id in self.before and e.id not in repeats]
        changed = {episode.id for episode in self._changed(resumed)}
        self.before = {}
        fresh: list[Episode] = []
        for group, place in rows:
            old = group.live[place]
            if old.id in repeats | changed:
                group.own[place] = BLANK
            if old.id in changed:
                restarted = old.counts[RESTARTED] + 1
                group.live[place] = self._episode(group, old.number, restarted)
                fresh.append(group.live[place])
        if fresh:
            self.engine.environment.end(sorted(changed))
            self.engine.begin(fresh)

    def _changed(self, resumed: Sequence[Episode]) -> list[Episode]:
        """Say the turns of resumed episodes again; those whose answers are others now."""
        turn = 0
        while acting := [e for e in resumed if turn < len(self.before[e.id].lengths) // 2]:
            acting = [e for e in acting if self.before[e.id].fits(e)]
            self.engine.go_on(acting, [self.before[e.id].turn(turn) for e in acting])
            turn += 1
        changed: list[Episode] = []
        for episode in resumed:
            before = self.before[episode.id]
            if before.fits(episode) and episode.length == before.settled:
                episode.turn = replace(
                    piece(before.whole, before.settled, len(before.whole.response_ids)),
                    finish_reason=OPEN,
                )
            else:
                changed.append(episode)
        return changed

    def _greedy(
        self, requests: Sequence[Request], step: int, attempt: int
    ) -> Sequence[Generation | None]:
        """The greedy episode of each group that is taken, with the start of its others."""
        if not self.greedy or not requests:
            return [None] * len(requests)
        groups = self.taken[len(self.taken) - len(requests) :]
        name = f"episode/greedy/{NAME}"
        episodes = [
            self._made(group, place, stream_seed(self.engine.seed, name, step, attempt, place))
            for place, group in enumerate(groups)
            if isinstance(group, Playing)
        ]
        call = GenerationCall([], ("greedy", step, attempt), greedy=True)
        return self.engine.play(episodes, call)

    def _lengths(self, episode: Episode) -> list[int]:
        """Tokens of each stretch of an episode, see `Before.lengths`."""
        before = self.before.get(episode.id)
        if before is not None:
            return list(before.lengths)
        return [*(len(part) for part in episode.turns), len(episode.turn.response_ids)]
