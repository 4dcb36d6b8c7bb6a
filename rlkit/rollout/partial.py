"""Partial rollouts: responses that continue in the next training step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import NOTHING, Request
from rlkit.errors import UserError
from rlkit.interfaces import State
from rlkit.ops import DIGITS
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine
from rlkit.rollout.packing import pack, unpack
from rlkit.rollout.source import Completed, Source, StepPlan, greedy_responses
from rlkit.tasks.stream import PromptStream

OPEN = "open"
"""The finish reason of an unfinished response."""
BLANK = Generation(
    response_ids=NOTHING,
    logp=torch.zeros(0),
    policy_version=torch.zeros(0, dtype=torch.int32),
    finish_reason=OPEN,
    extras={},
)
"""A response without any token yet."""


def pool_size(wanted: int, oversample: float) -> int:
    """How many groups are in progress if a step wants `wanted`: ceil(wanted (1 + oversample))."""
    return math.ceil(round(wanted * (1 + oversample), DIGITS))


def extended(before: Generation, more: Generation, reason: str) -> Generation:
    """A response and what was generated after it; each token keeps its log-prob and version."""
    extras: dict[str, Tensor | float] = {}
    for name, value in more.extras.items():
        known = before.extras.get(name)
        if isinstance(value, Tensor):
            extras[name] = value if known is None else torch.cat([torch.as_tensor(known), value])
        elif known is None or known == value:
            extras[name] = value
        else:
            raise UserError(
                f"this engine records one {name} per response, and a continued response has "
                "several; set rollout.oversample=0 and rollout.draft=none"
            )
    return Generation(
        response_ids=torch.cat([before.response_ids, more.response_ids]),
        logp=torch.cat([before.logp, more.logp]),
        policy_version=torch.cat([before.policy_version, more.policy_version]),
        finish_reason=reason,
        extras=extras,
    )


@dataclass(slots=True)
class UnderWay:
    """A request and its responses so far."""

    request: Request
    own: list[Generation]
    """`request.n` of them, blank at first."""
    earlier: int = 0
    """Tokens they had when the step began."""

    @property
    def unfinished(self) -> list[int]:
        """The indices of the unfinished responses."""
        return [i for i, g in enumerate(self.own) if g.finish_reason == OPEN]

    @property
    def tokens(self) -> int:
        """Tokens of all its responses."""
        return sum(len(g.response_ids) for g in self.own)

    def asks(self, tokens: int) -> list[Request]:
        """The requests for a round of at most this many tokens.

        The responses of a new group share one request, and so the forward over its prompt.
        """
        prompt, unfinished = self.request.prompt, self.unfinished
        if not self.tokens:
            return [Request(prompt=prompt, n=len(unfinished), max_tokens=tokens)]
        prefixes = [self.own[i].response_ids for i in unfinished]
        return [Request(prompt=prompt, n=1, prefix=p, max_tokens=tokens) for p in prefixes]


class Partial(Source):
    """A pool of groups in progress; a step takes complete ones, the others continue.

    A step that wants W groups keeps ceil(W (1 + oversample)) in progress. All their unfinished
    responses grow by rounds of at most `round_tokens` tokens until W groups are complete; the
    oldest complete ones are taken. The rest continue in the next step with that step's weights,
    after a fresh forward over their tokens, which keep the version and the log-prob of the weights
    that sampled them. So nothing is thrown away, and nothing depends on timing: rounds count
    tokens, they draw from the stream (step, round), and a checkpoint holds the pool.

    Groups of short responses are complete first: the first steps of a run train on shorter
    responses than the policy writes, and in every step long responses come from older weights.
    Every group that was begun is used later, the oldest complete ones first, except those in
    progress when a run or one of its stages ends. With oversample <= 1 and W fixed no token is more
    than ceil(max_completion_length / round_tokens) steps old. If the advantage needs greedy
    responses, they are generated when their group is taken, with the weights of that step. Source:
    Kimi k1.5 (arXiv:2501.12599), partial rollouts; APRIL (arXiv:2509.18521), oversampling. Status:
    adapted: both stop the engine as soon as there are enough responses; here it generates in
    rounds, so that a run can be repeated and resumed exactly.
    """

    def __init__(self, engine: RolloutEngine[Any], *, greedy: bool) -> None:
        self.engine = engine
        self.greedy = greedy
        self.pool: list[UnderWay] = []
        """In the order they were begun."""
        self.planned: list[Request] = []
        """Planned, but not begun yet: what is left of a plan."""
        self.wanted = 0
        self.rounds = 0
        """Rounds of this step; they number the random streams."""
        self.taken: list[UnderWay] = []
        """The groups of this step."""

    def begin(self, plan: StepPlan) -> None:
        """Record what earlier steps generated."""
        self.wanted, self.rounds, self.taken = plan.wanted, 0, []
        for group in self.pool:
            group.earlier = group.tokens

    def completed(self, plan: StepPlan, missing: int | None, attempt: int) -> list[Completed]:
        """The oldest complete groups, as soon as there are enough."""
        count = self.wanted if missing is None else missing
        while len(self._complete()) < count:
            self._fill(plan, pool_size(count, self.engine.config.oversample))
            self._round(plan.step)
        taken = self._complete()[:count]
        self.pool = [group for group in self.pool if all(group is not other for other in taken)]
        self.taken += taken
        greedy = self._greedy([group.request for group in taken], plan.step, attempt)
        return [
            Completed(request=group.request, own=group.own, greedy=response)
            for group, response in zip(taken, greedy, strict=True)
        ]

    def metrics(self) -> dict[str, float]:
        """What the step leaves unfinished, and the share of its tokens from earlier steps."""
        complete = len(self._complete())
        tokens = sum(group.tokens for group in self.taken)
        return {
            "off_policy/partial_groups": len(self.pool) - complete,
            "off_policy/waiting_groups": complete,
            "off_policy/continued_fraction": sum(g.earlier for g in self.taken) / max(1, tokens),
        }

    def state_dict(self) -> State:
        """The pool, with what its responses have so far."""
        return {
            "planned": [[request.prompt.prompt_id, request.n] for request in self.planned],
            "pool": [
                {"prompt_id": group.request.prompt.prompt_id, "own": pack(group.own)}
                for group in self.pool
            ],
        }

    def load_state_dict(self, state: State, prompts: PromptStream) -> None:
        """Restore what `state_dict` returned."""
        self.planned = [Request(prompt=prompts.get(name), n=n) for name, n in state["planned"]]
        for tree in state["pool"]:
            own = unpack(tree["own"])
            request = Request(prompt=prompts.get(tree["prompt_id"]), n=len(own))
            self.pool.append(UnderWay(request, own))

    def _complete(self) -> list[UnderWay]:
        """The groups without an unfinished response, the oldest first."""
        return [group for group in self.pool if not group.unfinished]

    def _fill(self, plan: StepPlan, size: int) -> None:
        """Begin new groups until `size` are in progress."""
        while len(self.pool) < size:
            if not self.planned:
                self.planned += plan.requests()
            request = self.planned.pop(0)
            self.pool.append(self._begun(request))

    def _begun(self, request: Request) -> UnderWay:
        """A group without any token yet."""
        return UnderWay(request, [BLANK] * request.n)

    def _round(self, step: int) -> None:
        """Extend every unfinished response by a round."""
        config = self.engine.config
        groups = [group for group in self.pool if group.unfinished]
        asked = [request for group in groups for request in group.asks(config.round_tokens)]
        found = self.engine.generate(GenerationCall(asked, ("rollout", step, self.rounds)))
        self.rounds += 1
        pieces = self._pieces(asked, found)
        for group in groups:
            for place in group.unfinished:
                more, reason = next(pieces)
                group.own[place] = extended(group.own[place], more, reason)

    def _pieces(
        self, asked: Sequence[Request], found: Sequence[Sequence[Generation]]
    ) -> Iterator[tuple[Generation, str]]:
        """Each piece, and why the response ends with it: OPEN if it does not.

        A piece that is shorter than the round and did not stop hit a limit of the engine.
        """
        full = self.engine.config.max_completion_length
        for request, pieces in zip(asked, found, strict=True):
            for piece in pieces:
                new = len(piece.response_ids)
                goes_on = new == request.max_tokens and len(request.prefix) + new < full
                is_open = piece.finish_reason == "length" and goes_on
                yield piece, OPEN if is_open else piece.finish_reason

    def _greedy(
        self, requests: Sequence[Request], step: int, attempt: int
    ) -> Sequence[Generation | None]:
        """The greedy response to each prompt, if it is needed."""
        if not self.greedy:
            return [None] * len(requests)
        return greedy_responses(self.engine, requests, step, attempt)
