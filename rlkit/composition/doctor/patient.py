"""What the doctor looks at: a composition, of which each piece is made once, when first needed.

A piece that cannot be made fails the check that asks for it first; the others that need it are
told that it is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from rlkit.composition.composition import Composition
from rlkit.composition.doctor.answers import Answers, ask
from rlkit.composition.doctor.problems import Looked, look_at
from rlkit.composition.doctor.scored import Scored, score_answers
from rlkit.composition.doctor.trial_step import TrialStep, take_step
from rlkit.composition.models_beside import model_opener
from rlkit.composition.session import RunScope, probe_policy, told_policy
from rlkit.interfaces import AnchorPolicy, RunContext
from rlkit.models.policy import Policy
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import RolloutEngine
from rlkit.training.collect import Collected, Collector

T = TypeVar("T")


class Unavailable(Exception):
    """A piece is missing, since making it failed: the check that asked for it first says why."""


class Patient:
    """A composition to be examined."""

    def __init__(self, c: Composition, seconds: float, *, beside: bool = False) -> None:
        self.c = c
        self.beside = beside
        """Whether the run generates while it trains, in a process of its own."""
        self.seconds = seconds
        """About how long generating, scoring and the trial step may take together."""
        self.notes: list[str] = []
        """What a run would say while it loads the model."""
        self.fits = True
        """Whether a training step fits into memory, by the estimate."""
        self.took: dict[str, float] = {}
        """Seconds it took to make each piece."""
        self._made: dict[str, Any] = {}
        self._failed: set[str] = set()

    def _once(self, what: str, make: Callable[[], T]) -> T:
        if what in self._failed:
            raise Unavailable(f"{what} could not be had, see above")
        if what not in self._made:
            started = time.perf_counter()
            try:
                self._made[what] = make()
            except Unavailable:
                raise
            except Exception:
                self._failed.add(what)
                raise
            self.took[what] = time.perf_counter() - started
        return cast("T", self._made[what])

    @property
    def policy(self) -> Policy:
        """The model, loaded and probed as a run does it."""
        return self._once("the model", self._load)

    def _load(self) -> Policy:
        scope = RunScope.of(self.c, say=self.notes.append)
        policy = told_policy(self.c, scope, None, None)
        probe_policy(policy, self.c.config, scope, None)
        return policy

    @property
    def problems(self) -> Looked:
        """Some of the task's training problems, encoded."""
        return self._once("the problems", lambda: look_at(self.c, self.policy))

    @property
    def engine(self) -> RolloutEngine[Any]:
        """The rollout engine, started with the model."""
        return self._once("the engine", self._start)

    def _start(self) -> RolloutEngine[Any]:
        policy = self.policy
        self.c.rollouts.start(policy, self.c.config.seed)
        return self.c.rollouts

    @property
    def answers(self) -> Answers:
        """Responses of the engine to some problems."""
        return self._once("the responses", lambda: ask(self, self.seconds / 3))

    @property
    def collected(self) -> Collected:
        """The responses in groups, with their rewards."""
        return self._once("the rewarded groups", self._collect)

    def _collect(self) -> Collected:
        if not self.c.rewards:
            raise Unavailable("the run has no reward, and trains on given data")
        source, advantage = self.answers, self.c.parts.advantage
        rewards = RewardSet(self.c.rewards)
        collector = Collector(source, rewards, advantage, self.policy.tokenizer)
        return collector.collect(source.plan, first_id=0)

    @property
    def scored(self) -> Scored:
        """The trainer's own log-probs of the responses."""
        return self._once("the trainer's log-probs", lambda: score_answers(self, self.seconds / 6))

    @property
    def anchor(self) -> AnchorPolicy[Any]:
        """The anchor with its references."""
        return self._once("the anchor", self._anchored)

    def _anchored(self) -> AnchorPolicy[Any]:
        anchor = self.c.parts.anchor
        anchor.open(
            RunContext(
                seed=self.c.config.seed,
                writes=False,
                read_by_loss=self.c.read_by_loss,
                max_completion_length=self.c.engine.config.max_completion_length,
                open_model=model_opener(self.c, self.policy, self.notes.append),
            )
        )
        anchor.rebase(self.policy)
        return anchor

    @property
    def step(self) -> TrialStep:
        """A training step with learning rate 0."""
        if not self.fits:
            raise Unavailable("a step needs more memory than there is, see above")
        return self._once("the trial step", lambda: take_step(self, self.seconds / 4))
