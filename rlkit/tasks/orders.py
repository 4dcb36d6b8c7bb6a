"""In which order the prompts of a task are taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from rlkit.config.prompts import PromptsConfig
from rlkit.interfaces import State
from rlkit.tasks.pass_rates import PassRates

Places = NDArray[np.int64]
Draw = Callable[[int], np.random.Generator]
"""The generator of an epoch, or of a call: the same for the same number."""


class Shuffled:
    """Every prompt once per epoch, each epoch in an order of its own.

    Prompts that are solved, by `drop_solved`, are passed over; if all are, they all come back.
    """

    def __init__(
        self, places: Places, draw: Draw, config: PromptsConfig, rates: PassRates | None
    ) -> None:
        self.places = places
        """[n], where the task's prompts stand among all."""
        self.draw = draw
        self.config = config
        self.rates = rates
        self.passed = 0
        """Places of the order passed so far, taken or left out."""
        self._epoch = -1
        self._order: list[int] = []

    @property
    def epochs(self) -> float:
        """How often it went through the prompts so far."""
        return self.passed / len(self.places)

    def take(self, n: int) -> list[int]:
        """Where the next n prompts stand among all."""
        left_out = self.passed_over()
        taken: list[int] = []
        while len(taken) < n:
            epoch, offset = divmod(self.passed, len(self.places))
            if epoch != self._epoch:
                self._order, self._epoch = self.ordered(epoch), epoch
            place = self._order[offset]
            self.passed += 1
            if place not in left_out:
                taken.append(int(self.places[place]))
        return taken

    def ordered(self, epoch: int) -> list[int]:
        """The order of an epoch: a permutation of 0 to n - 1."""
        order: list[int] = self.draw(epoch).permutation(len(self.places)).tolist()
        return order

    def solved(self) -> set[int]:
        """Which of 0 to n - 1 are left out now; if that were all, none."""
        limit = self.config.drop_solved
        if limit is None or self.rates is None:
            return set()
        solved = self.rates.streak[self.places] >= limit
        return set() if solved.all() else set(np.flatnonzero(solved).tolist())

    def passed_over(self) -> set[int]:
        """The `solved` ones as prompts are taken: if that were all, they count anew."""
        limit = self.config.drop_solved
        if limit is not None and self.rates is not None:
            streak = self.rates.streak
            if (streak[self.places] >= limit).all():
                streak[self.places] = 0
        return self.solved()

    def state_dict(self) -> State:
        """How far it is."""
        return {"passed": self.passed}

    def load_state_dict(self, state: State) -> None:
        """Continue from there."""
        self.passed, self._epoch = state["passed"], -1


class EasyFirst(Shuffled):
    """An epoch begins with the prompts whose pass rate is highest when it begins.

    Equal rates come in random order: without a rate known beforehand the first epoch is shuffled.
    """

    def ordered(self, epoch: int) -> list[int]:
        """The shuffled order, sorted by falling pass rates."""
        assert self.rates is not None
        shuffled = np.array(super().ordered(epoch), dtype=np.int64)
        falling = -self.rates.mean[self.places[shuffled]]
        order: list[int] = shuffled[np.argsort(falling, kind="stable")].tolist()
        return order

    def state_dict(self) -> State:
        """How far it is in which order: the rates have changed since."""
        return {**super().state_dict(), "epoch": self._epoch, "order": torch.tensor(self._order)}

    def load_state_dict(self, state: State) -> None:
        """Continue from there; the epoch is sorted anew with other data, or after another order."""
        super().load_state_dict(state)
        if len(state.get("order", ())) == len(self.places):
            self._epoch, self._order = state["epoch"], state["order"].tolist()


class Target(Shuffled):
    """Prompts whose pass rate is likely to be near a target: Thompson sampling.

    A rate is drawn from each prompt's distribution, and the nearest to the target are taken. There
    are no epochs. Source: BOTS (arXiv:2510.26374). A prompt of which nothing is known draws
    uniformly, so that unknown prompts are tried as long as there are any.
    """

    def take(self, n: int) -> list[int]:
        """The n nearest, no prompt twice before all were taken once, in random order."""
        assert self.rates is not None
        rng = self.draw(self.passed)
        self.passed += n
        left_out = list(self.passed_over())
        open_to = np.delete(self.places, left_out) if left_out else self.places
        away = np.abs(self.rates.drawn(open_to, rng) - self.config.target)
        nearest = open_to[np.argsort(away, kind="stable")]
        taken = np.resize(nearest, n)
        order: list[int] = rng.permutation(taken).tolist()
        return order


ORDERS: dict[str, type[Shuffled]] = {
    "shuffled": Shuffled,
    "easy_first": EasyFirst,
    "target": Target,
}
