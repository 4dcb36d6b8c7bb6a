"""The interface of a task: where problems come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from typing_extensions import TypeVar

from rlkit.interfaces.part import Part, PartConfig
from rlkit.interfaces.reward import Reward

TASK = "task"
"""The column by which a mix of tasks says which of them a row is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """A task's problems.

    Rows with a `prompt` (text or messages) and further columns for the rewards.
    """

    train: Sequence[Mapping[str, Any]]
    eval: Sequence[Mapping[str, Any]]


ChatTemplate = Literal["auto", "never", "always"]


class TaskConfig(PartConfig):
    """Fields every task has."""

    chat_template: ChatTemplate = "auto"
    """Whether a prompt that is text becomes a user message if the tokenizer has a chat template:
    always, never (as in TRL), or auto = unless it carries the template's tokens already. The run
    says what it did. Prompts that are messages always take the template; a last one of the
    assistant is what the response continues."""

    overlong: Literal["error", "drop"] = "error"
    """What happens to a problem whose prompt is longer than rollout.max_prompt_length."""


TC = TypeVar("TC", bound=TaskConfig, default=TaskConfig)


class Task(Part[TC]):
    """A source of problems, with held-out ones for evaluation."""

    Config: ClassVar[type[PartConfig]] = TaskConfig
    compares: ClassVar[bool] = False
    """Whether its rows are preferences: a prompt with a chosen and a rejected response."""
    default_rewards: ClassVar[tuple[str, ...]] = ()
    """Registered rewards used if the configuration names none and the task has no scorer of its
    own."""

    @property
    def embedded(self) -> bool:
        """Whether the embedded model can answer it."""
        return False

    @property
    def base(self) -> str:
        """Which of the embedded models can, if one can: `sums` or `calls`."""
        return "sums"

    @property
    def mix(self) -> Mapping[str, float]:
        """The weights of the tasks of a mix, whose rows name them in the column `task`."""
        return {}

    def mix_rewards(
        self, chosen: Mapping[str, Reward], fallback: Mapping[str, Reward]
    ) -> Mapping[str, Reward] | None:
        """The rewards of a mix: `chosen` by the run, if any, else `fallback`; None = no mix."""
        return None

    @abstractmethod
    def load(self, seed: int) -> TaskData:
        """Read or generate the rows. Deterministic in the config and the seed."""

    def all_problems(self, seed: int) -> Sequence[Mapping[str, Any]]:
        """Every row there is to evaluate on if nothing is trained: by default the held-out ones."""
        return self.load(seed).eval

    def score(self, completion: str, row: Mapping[str, Any]) -> float | None:
        """The task's own reward for a completion; only if `scores` is true.

        None = it could not be scored, and the response is left out.
        """
        raise TypeError(f"{type(self).__name__} has no scorer of its own")

    def score_all(
        self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> list[float | None]:
        """The same for completions of several rows, by default one after the other."""
        return [self.score(text, row) for text, row in zip(completions, rows, strict=True)]

    def counts(self) -> dict[str, int]:
        """Events of scoring since the last call, as those of a reward; they are then reset."""
        return {}

    scores: ClassVar[bool] = False
