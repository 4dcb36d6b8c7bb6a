"""Which share of the responses to each prompt was right in the run so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlkit.batch import Group
from rlkit.errors import UserError
from rlkit.interfaces import State

Floats = NDArray[np.float64]
KNOWN = 4.0
"""How many responses a pass rate known beforehand counts for; our choice."""
IsRight = Callable[[Group], Sequence[bool]]
"""Which of a group's responses are right, of those that the judging reward applies to."""


def evidence(rate: Floats) -> tuple[Floats, Floats]:
    """Prior counts of right and wrong responses, [N] each; a rate of NaN is unknown.

    Beta(1, 1), which is uniform, or Beta(1 + 4 r, 1 + 4 (1 - r)) with a known rate r.
    """
    known = np.where(np.isnan(rate), 0.0, KNOWN)
    rate = np.nan_to_num(rate)
    return 1 + known * rate, 1 + known * (1 - rate)


def known_rates(rows: Sequence[Mapping[str, Any]], column: str | None) -> Floats:
    """The rates in a column of the rows, NaN where a row has none.

    Raises UserError if no row has one, or for one that is not a number from 0 to 1.
    """
    rates = np.full(len(rows), np.nan)
    if column is None:
        return rates
    for index, row in enumerate(rows):
        value = row.get(column)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(
                f"prompts.pass_rate_column={column}: problem {index} of the train set has "
                f"{value!r}, not a number from 0 to 1"
            )
        rates[index] = value
    if np.isnan(rates).all():
        raise UserError(
            f"prompts.pass_rate_column={column}, but no row of the task has that column"
        )
    return rates


class PassRates:
    """A Beta distribution of each prompt's pass rate, which forgets as the policy changes.

        a <- (1 - forget) a + forget a_0 + right,  b <- (1 - forget) b + forget b_0 + wrong

    once per training step, for every prompt. Source: BOTS (arXiv:2510.26374), explicit evidence.
    Status: adapted: BOTS also infers evidence on prompts that were not asked from two reference
    models' rates, which is left out (its rho is 0 here).
    """

    def __init__(self, ids: Sequence[str], known: Floats, forget: float) -> None:
        self.ids = ids
        self.prior = evidence(known)
        self.forget = forget
        self.right, self.wrong = np.zeros(len(ids)), np.zeros(len(ids))
        """[N] float64, what is remembered of right and wrong responses to each prompt."""
        self.streak = np.zeros(len(ids), dtype=np.int64)
        """[N], groups in a row that were right throughout."""
        self.seen = np.zeros(len(ids), dtype=np.bool_)
        """[N], whether the prompt had a response."""

    @property
    def mean(self) -> Floats:
        """[N], the mean of each distribution."""
        a, b = self.prior[0] + self.right, self.prior[1] + self.wrong
        mean: Floats = a / (a + b)
        return mean

    def drawn(self, places: NDArray[np.int64], rng: np.random.Generator) -> Floats:
        """A draw from the distribution of each of these prompts."""
        a, b = self.prior[0] + self.right, self.prior[1] + self.wrong
        return rng.beta(a[places], b[places])

    def observe(self, groups: Sequence[Group], places: Mapping[str, int], right: IsRight) -> None:
        """Take in a step's fresh groups; those of prompts that are not the task's are left out."""
        self.right *= 1 - self.forget
        self.wrong *= 1 - self.forget
        for group in groups:
            place, marks = places.get(group.prompt.prompt_id), right(group)
            if place is None or not marks:
                continue
            self.right[place] += sum(marks)
            self.wrong[place] += len(marks) - sum(marks)
            self.streak[place] = self.streak[place] + 1 if all(marks) else 0
            self.seen[place] = True

    def state_dict(self) -> State:
        """What is known of the prompts that had responses, by their ids."""
        places = np.flatnonzero(self.seen)
        return {
            "ids": [self.ids[place] for place in places.tolist()],
            "right": torch.from_numpy(self.right[places]),
            "wrong": torch.from_numpy(self.wrong[places]),
            "streak": torch.from_numpy(self.streak[places]),
        }

    def load_state_dict(self, state: State, places: Mapping[str, int]) -> None:
        """Take back what `state_dict` gave; prompts that are not in the data any more are left."""
        kept = [i for i, name in enumerate(state["ids"]) if name in places]
        where = [places[state["ids"][i]] for i in kept]
        self.right[where] = state["right"].numpy()[kept]
        self.wrong[where] = state["wrong"].numpy()[kept]
        self.streak[where] = state["streak"].numpy()[kept]
        self.seen[where] = True
