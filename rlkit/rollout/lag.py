"""Which weights generate: those of the last sync, which may be some training steps old."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from rlkit.interfaces import State
from rlkit.models.policy import Policy
from rlkit.rollout.base import RolloutEngine


class Lag:
    """Syncs an engine every L = `rollout.sync_every` training steps, and knows what it holds.

    Step k generates with the weights of step k - (k - 1) mod L, so a run with L = 1 is on-policy.
    Evaluations use the current policy. If L > 1, a copy of the engine's weights is kept in host
    memory, for checkpoints and to restore them after an evaluation; any engine can lag. Source:
    OAPL (arXiv:2602.19362), whose inference policy is refreshed every L steps. Status: exact.
    """

    def __init__(self, engine: RolloutEngine[Any], policy: Policy) -> None:
        self.engine = engine
        self.policy = policy
        self.every = engine.config.sync_every
        self.version = 1
        self.kept = self._weights()

    def sync(self, step: int) -> None:
        """Give the engine the weights of the start of step `step`, if a sync is due there."""
        if (step - 1) % self.every == 0:
            self._give(step)

    def _give(self, step: int) -> None:
        """Give the engine the policy's weights as they are, those of the start of step `step`."""
        self.engine.sync(step)
        self.version, self.kept = step, self._weights()

    @contextmanager
    def current(self, step: int) -> Generator[None]:
        """Generate with the policy's weights, which `step` starts from, inside this context."""
        if self.version == step:
            yield
            return
        self.engine.sync(step)
        try:
            yield
        finally:
            self._restore()

    def state_dict(self) -> State:
        """The engine's version and weights; nothing if they are the policy's own."""
        return {"version": self.version, "weights": self.kept} if self.kept else {}

    def load_state_dict(self, state: State, step: int) -> None:
        """Restore what `state_dict` returned, before step `step`.

        A run that lags only from now on, or no longer, continues with the policy's own weights.
        """
        if not state or self.every == 1:
            self._give(step)
            return
        self.version, self.kept = state["version"], state["weights"]
        self._restore()

    def _weights(self) -> dict[str, Tensor]:
        """A copy of the policy's weights in host memory; {} if the engine does not lag."""
        if self.every == 1:
            return {}
        state = self.policy.model.state_dict()
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def _restore(self) -> None:
        """Sync the engine with the kept weights, which the policy holds during the sync."""
        now = self._weights()
        self.policy.model.load_state_dict(self.kept)
        self.engine.sync(self.version)
        self.policy.model.load_state_dict(now)
