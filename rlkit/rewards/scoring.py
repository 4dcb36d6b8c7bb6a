"""All rewards of a run on one batch: called once each, checked, weighted and summed."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.plugins import user_line
from rlkit.rewards.overlap import Arguments, called
from rlkit.rewards.values import RowFailed, numbers_of
from rlkit.rewards.weights import weighted_sum, weights_of

FAILURES = ("errors", "timeouts", "lost", "unparsed")
"""Events of rewards that say that a response was not judged by what it says."""
FINISH_REASONS = "finish_reasons"
"""What a reward is given beside `completion_ids`: why each response ended."""
RESERVED = ("prompts", "completions", "completion_ids", FINISH_REASONS, "self")
NONE_CHOSEN = "no reward is chosen; set reward=[<name>]"


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardResult:
    """The scores of B completions."""

    total: list[float | None]
    """[B], the sum of weight * value over the rewards that apply, by `weights_of`; None if none
    applies but those that only evaluate."""
    components: dict[str, list[float | None]]
    """Reward name -> [B], unweighted."""
    counts: dict[str, int]
    """Events during the call ("errors", "timeouts", "lost"), over all rewards."""

    def at(self, index: int) -> dict[str, float]:
        """The rewards that apply to a completion."""
        return {n: value for n, v in self.components.items() if (value := v[index]) is not None}


class RewardSet:
    """Scores completions with every reward of a run, in the main process.

    A run that trains on given data alone has none, and no completions.
    """

    def __init__(self, rewards: Mapping[str, Reward], processes: Processes = SINGLE) -> None:
        self.rewards = dict(rewards)
        self.processes = processes

    @property
    def parts(self) -> dict[str, Reward]:
        """Each reward itself, without what chooses the responses it is called with."""
        return {name: reward.itself for name, reward in self.rewards.items()}

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
        finish_reasons: Sequence[str] | None = None,
    ) -> RewardResult:
        """Score B completions; every argument and every column has B entries.

        Rewards learn why the responses ended ("stop", "length") if that is known.

        Raises UserError for a column with a reserved name, if a reward raises or returns anything
        but one finite number or None per completion, and if there are completions and no reward.
        """
        if not self.rewards:
            if completions:
                raise UserError(NONE_CHOSEN)
            return RewardResult(total=[], components={}, counts={})
        check_columns(columns)
        given: dict[str, Sequence[Any]] = {"completion_ids": completion_ids, **columns}
        if finish_reasons is not None:
            given[FINISH_REASONS] = finish_reasons
        return self.processes.on_main(lambda: score_all(self.rewards, prompts, completions, given))


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
    """Score B completions in this process.

    `given` holds `completion_ids`, the columns and, if they are known, `finish_reasons`.
    """
    components: dict[str, list[float | None]] = {}
    counts: dict[str, int] = {}
    for name, result in called(rewards, Arguments(prompts, completions, given)).items():
        components[name] = numbers_of(name, _returned(name, result), range(len(completions)))
    for reward in rewards.values():
        for event, count in reward.counts().items():
            counts[event] = counts.get(event, 0) + count
    counted = {
        n: w for n, w in weights_of(rewards).items() if not rewards[n].config.evaluation_only
    }
    weights, parts = list(counted.values()), [components[name] for name in counted]
    total = [weighted_sum(weights, [part[i] for part in parts]) for i in range(len(completions))]
    return RewardResult(total=total, components=components, counts=counts)


def _returned(name: str, result: Future[Any]) -> Any:
    """What a reward returned. Raises UserError if it raised."""
    try:
        return result.result()
    except UserError:
        raise
    except RowFailed as failed:
        assert failed.__cause__ is not None
        raise raised(name, failed.__cause__, f" for completion {failed.row}") from failed.__cause__
    except Exception as error:
        raise raised(name, error) from error


def raised(name: str, error: BaseException, where: str = "") -> UserError:
    """The error of a reward that raised."""
    message = " ".join(str(error).split())
    return UserError(
        f"reward '{name}' raised {type(error).__name__}{where}: {message[:300]} "
        f"({place_of(error)}); fix it, or return None if it does not apply"
    )


def place_of(error: BaseException) -> str:
    """file:line of the innermost frame in the user's own code, else of the innermost frame."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return user_line(error) or f"{innermost.filename}:{innermost.lineno}"
