"""All rewards of a run on one batch: called once each, checked, weighted and summed."""

from __future__ import annotations

import math
import numbers
import os
import sysconfig
import traceback
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.rewards.overlap import Arguments, called

RESERVED = ("prompts", "completions", "completion_ids", "self")
NOT_USER_CODE = (
    "<",
    f"{Path(__file__).resolve().parent.parent}{os.sep}",
    *(f"{sysconfig.get_path(key)}{os.sep}" for key in ("stdlib", "purelib", "platlib")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardResult:
    """The scores of B completions."""

    total: list[float | None]
    """[B], sum of weight * value over the rewards that apply; None if none applies."""
    components: dict[str, list[float | None]]
    """Reward name -> [B], unweighted."""
    counts: dict[str, int]
    """Events during the call ("errors", "timeouts", "lost"), over all rewards."""

    def at(self, index: int) -> dict[str, float]:
        """The rewards that apply to a completion."""
        return {n: value for n, v in self.components.items() if (value := v[index]) is not None}


class RewardSet:
    """Scores completions with every reward of a run, in the main process."""

    def __init__(self, rewards: Mapping[str, Reward], processes: Processes = SINGLE) -> None:
        if not rewards:
            raise UserError("no reward is chosen; set reward=[<name>]")
        self.rewards = dict(rewards)
        self.processes = processes

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
    ) -> RewardResult:
        """Score B completions; every argument and every column has B entries.

        Raises UserError for a column with a reserved name, and if a reward raises or returns
        anything but one finite number or None per completion.
        """
        check_columns(columns)
        given = {"completion_ids": completion_ids, **columns}
        return self.processes.on_main(lambda: score_all(self.rewards, prompts, completions, given))


class NoRewards(RewardSet):
    """The rewards of a run that trains on given data and has none."""

    def __init__(self, processes: Processes = SINGLE) -> None:
        self.rewards, self.processes = {}, processes

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
    ) -> RewardResult:
        """Nothing, for no completions. Raises UserError if there are some."""
        if completions:
            raise UserError("responses were generated, and no reward is chosen: reward=[<name>]")
        return RewardResult(total=[], components={}, counts={})


def check_columns(columns: Collection[str]) -> None:
    """Raise UserError for a column with a name that the run uses itself."""
    for name in RESERVED:
        if name in columns:
            raise UserError(
                f"the task has a column called '{name}', a name the run uses itself; rename it"
            )


def wants_messages(error: UserError) -> bool:
    """Whether a reward may have failed because it reads messages and was given a text."""
    return isinstance(error.__cause__, TypeError | IndexError | AttributeError)


def score_all(
    rewards: Mapping[str, Reward],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    given: Mapping[str, Sequence[Any]],
) -> RewardResult:
    """Score B completions in this process; `given` holds `completion_ids` and the columns."""
    components: dict[str, list[float | None]] = {}
    counts: dict[str, int] = {}
    for name, result in called(rewards, Arguments(prompts, completions, given)).items():
        components[name] = numbers_of(name, _returned(name, result), len(completions))
    for reward in rewards.values():
        for event, count in reward.counts().items():
            counts[event] = counts.get(event, 0) + count
    weights = [reward.config.weight for reward in rewards.values()]
    total = [weighted_sum(weights, row) for row in zip(*components.values(), strict=True)]
    return RewardResult(total=total, components=components, counts=counts)


def weighted_sum(weights: Sequence[float], values: Sequence[float | None]) -> float | None:
    """Sum of weight * value over the values that are not None; None if all are."""
    parts = [w * v for w, v in zip(weights, values, strict=True) if v is not None]
    return math.fsum(parts) if parts else None


def numbers_of(name: str, values: Any, expected: int) -> list[float | None]:
    """A reward's return value as plain floats.

    Raises UserError unless it is a list, array or tensor of `expected` finite numbers or None.
    """
    if not isinstance(values, (list, tuple, np.ndarray, Tensor)):
        raise UserError(
            f"reward '{name}' returned {_short(values)}; it must return a list with one number or "
            "None per completion"
        )
    rows = list(values)
    if len(rows) != expected:
        raise UserError(
            f"reward '{name}' returned {len(rows)} values for {expected} completions; "
            "it must return one number or None per completion"
        )
    return [_number(name, value, index) for index, value in enumerate(rows)]


def _number(name: str, value: Any, index: int) -> float | None:
    if value is None:
        return None
    if isinstance(value, (np.generic, np.ndarray, Tensor)) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise UserError(
            f"reward '{name}' returned {_short(value)} for completion {index}; "
            "it must be a number or None"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(
            f"reward '{name}' returned {number} for completion {index}; it must be finite, "
            "or None if the reward does not apply"
        )
    return number


def _returned(name: str, result: Future[Any]) -> Any:
    """What a reward returned. Raises UserError if it raised."""
    try:
        return result.result()
    except UserError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())
        raise UserError(
            f"reward '{name}' raised {type(error).__name__}: {message[:300]} ({user_line(error)}); "
            "fix it, or return None if it does not apply"
        ) from error


def user_line(error: BaseException) -> str:
    """file:line of the innermost frame in the user's own code, else of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(NOT_USER_CODE)]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{text[:60]} ({type(value).__name__})"
