"""Responses requested some training steps before their own: modes ahead and async."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from rlkit.batch import Request
from rlkit.interfaces import State
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.packing import pack, unpack
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.shared import SharedRemote
from rlkit.rollout.source import Completed, Source, StepPlan, once
from rlkit.tasks.stream import PromptStream


def capacity(*, accepted: int, running: int, version: int, batch: int, max_staleness: int) -> int:
    """How many groups may be requested now so that none is older than allowed when it is used.

    (max_staleness + version + 1) batch - (accepted + running), at least 0: `version` updates were
    made with `batch` groups each; `accepted` counts the groups generated, used or not. Source:
    AReaL (arXiv:2505.24298), staleness manager. Status: adapted: AReaL also limits the running
    requests, whereas here one engine serves them in order.
    """
    return max(0, (max_staleness + version + 1) * batch - (accepted + running))


@dataclass(frozen=True, slots=True)
class Job:
    """Requests submitted to the engine together."""

    requests: Sequence[Request]
    own: int
    """The engine's number for their responses."""
    greedy: int | None
    """The number for the greedy responses."""


class Ahead(Source):
    """A queue of groups; each step takes the oldest and requests as many as `capacity` allows.

    In step k the engine has the weights that step starts from; what is requested then is used at
    most `max_staleness` steps later. With max_staleness = 1 (mode ahead) step k trains on what was
    generated with the weights of step k - 1 while that step trained, and the first step on its own
    responses: the one-step lag of asynchronous RLHF (arXiv:2410.18252). With 0 it is the
    synchronous run. Prompts are always new, in data order: a buffer that plans others cannot be
    asked early. A group whose oldest token is more than `max_staleness` steps old when it is to be
    used is dropped and replaced; this happens if later steps want fewer groups. Status: adapted:
    the rule is AReaL's (arXiv:2505.24298); here groups are used in order.
    """

    def __init__(self, engine: RemoteEngine | SharedRemote, *, greedy: bool) -> None:
        self.engine = engine
        self.greedy = greedy
        self.max_staleness: int = engine.config.steps_ahead
        self.jobs: deque[Job] = deque()
        self.waiting: deque[Completed] = deque()
        self.planned: list[Request] = []
        """Planned, but not requested yet: what is left of a plan."""
        self.asked = 0
        """Jobs so far; they number the random streams."""
        self.wanted = 0

    @property
    def size(self) -> int:
        """Groups that are generated or requested, and not used yet."""
        return len(self.waiting) + self._running()

    def begin(self, plan: StepPlan) -> None:
        """Request as many groups as allowed: the hand-over point of the step."""
        wanted, step = plan.wanted, plan.step
        self.wanted, self.dropped = wanted, ()
        used = (step - 1) * wanted  # as many as the rule counts for the updates that were made
        room = capacity(
            accepted=used + len(self.waiting),
            running=self._running(),
            version=step - 1,
            batch=wanted,
            max_staleness=self.max_staleness,
        )
        self._ask(room, plan)

    def completed(self, plan: StepPlan, missing: int | None, attempt: int) -> list[Completed]:
        """The oldest groups that are young enough; requests more if the queue has too few."""
        count = self.wanted if missing is None else missing
        taken: list[Completed] = []
        while len(taken) < count:
            self._ask(count - len(taken) - self.size, plan)
            group = self._oldest()
            if plan.step - version_of(group, plan.step) > self.max_staleness:
                self.dropped = [*self.dropped, group]
            else:
                taken.append(group)
        return taken

    def metrics(self) -> dict[str, float]:
        """Groups dropped for their age, their mean length, and groups that later steps will find.

        Where longer responses wait longer, dropping by age takes them out of the data.
        """
        out: dict[str, float] = {"off_policy/dropped": len(self.dropped)}
        lengths = [one.own_tokens for group in self.dropped for one in group.own]
        if lengths:
            out["off_policy/dropped_mean_length"] = sum(lengths) / len(lengths)
        return out | {"off_policy/ahead": self.size}

    def state_dict(self) -> State:
        """The queue; waits until every request is answered."""
        while self.jobs:
            self._receive()
        return {
            "asked": self.asked,
            "planned": [[request.prompt.prompt_id, request.n] for request in self.planned],
            "waiting": [
                {
                    "prompt_id": group.request.prompt.prompt_id,
                    "own": pack(group.own),
                    "greedy": pack([group.greedy] if group.greedy is not None else []),
                }
                for group in self.waiting
            ],
        }

    def load_state_dict(self, state: State, prompts: PromptStream) -> None:
        """Restore what `state_dict` returned."""
        self.asked = state["asked"]
        self.planned = [Request(prompt=prompts.get(name), n=n) for name, n in state["planned"]]
        for tree in state["waiting"]:
            own, greedy = unpack(tree["own"]), unpack(tree["greedy"])
            request = Request(prompt=prompts.get(tree["prompt_id"]), n=len(own))
            self.waiting.append(
                Completed(request=request, own=own, greedy=greedy[0] if greedy else None)
            )

    def _running(self) -> int:
        return sum(len(job.requests) for job in self.jobs)

    def _ask(self, count: int, plan: StepPlan) -> None:
        """Submit `count` requests, in jobs of as many as a step wants."""
        while count > 0:
            size = min(count, self.wanted)
            while len(self.planned) < size:
                self.planned += plan.requests()
            requests, self.planned = self.planned[:size], self.planned[size:]
            self.asked += 1
            own = self.engine.submit(GenerationCall(requests, ("rollout", self.asked, 0)))
            greedy = None
            if self.greedy:
                stream = ("greedy", self.asked, 0)
                greedy = self.engine.submit(GenerationCall(once(requests), stream, greedy=True))
            self.jobs.append(Job(requests, own, greedy))
            count -= size

    def _oldest(self) -> Completed:
        """Take the group that was requested first."""
        if not self.waiting:
            self._receive()
        return self.waiting.popleft()

    def _receive(self) -> None:
        """Wait for the oldest job."""
        job = self.jobs.popleft()
        own = self.engine.wait(job.own)
        greedy = self.engine.wait(job.greedy) if job.greedy is not None else [()] * len(own)
        self.waiting += [
            Completed(request=request, own=group, greedy=next(iter(single), None))
            for request, group, single in zip(job.requests, own, greedy, strict=True)
        ]


def version_of(group: Completed, step: int) -> int:
    """The oldest version among a group's tokens; the step itself if there are none."""
    return min((int(g.policy_version.min()) for g in group.own if len(g.logp)), default=step)
