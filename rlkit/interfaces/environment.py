"""The interfaces around the loop: tasks give problems, rewards score, trackers record."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import TypeVar

from rlkit.interfaces.part import C, Part, PartConfig, RunContext


class RewardConfig(PartConfig):
    """Fields every reward has."""

    weight: float = 1.0
    """Its weight in the total: reward = sum of weight * value over the rewards that apply. It may
    follow a scalar schedule."""
    evaluation_only: bool = False
    """Whether it is called in evaluations alone, where it is reported and has no part in the total:
    what a run is measured by and does not train on, such as a gold reward."""
    limit: float | None = None
    """Makes the reward a cost whose mean is kept at or below this: a Lagrange multiplier takes the
    weight's place, reward = sum of weight * value - multiplier * cost. null = no cost."""
    multiplier: Annotated[float, Field(ge=0)] = 0.0
    """The multiplier in the first step. Each step adds multiplier_rate * (mean cost - limit)."""
    multiplier_rate: Annotated[float, Field(gt=0)] = 0.1
    """Step size of the multiplier, per unit of the cost."""
    multiplier_max: Annotated[float, Field(gt=0)] = 10.0
    """The multiplier's upper bound, reached if the limit cannot be kept."""

    @model_validator(mode="after")
    def _weighs_in_one_way(self) -> Self:
        weight = type(self).model_fields["weight"].default
        if self.limit is not None and self.evaluation_only:
            raise ValueError(
                "evaluation_only has no effect on training, and limit acts there alone"
            )
        if self.evaluation_only and self.weight != weight:
            raise ValueError("weight has no effect beside evaluation_only: it is in no total")
        if self.limit is not None and self.weight != weight:
            raise ValueError("weight has no effect beside limit: the multiplier is the weight")
        if self.limit is None and self.multiplier > 0:
            raise ValueError("multiplier is that of a limit; set limit to the largest mean cost")
        if self.multiplier > self.multiplier_max:
            raise ValueError(
                f"multiplier={self.multiplier} must be at most multiplier_max={self.multiplier_max}"
            )
        return self


RC = TypeVar("RC", bound=RewardConfig, default=RewardConfig)


class Reward(Part[RC]):
    """Scores completions, with TRL's signature."""

    Config: ClassVar[type[PartConfig]] = RewardConfig
    marks_correctness: ClassVar[bool | None] = None
    """Whether 1 means that the response is right, and less that it is not: what an evaluation
    counts. None = it does not say, which counts if no other reward says yes."""
    beside_others: ClassVar[bool] = False
    """Whether a thread of its own may call it while others are called: it waits for processes or a
    server, and shares nothing with other code, such as the state of a random generator."""
    costly: ClassVar[bool] = False
    """Whether a call loads a model or asks a service, so that a dry run makes none."""
    context: RunContext = RunContext()
    """The run it belongs to, see `open`."""

    def open(self, context: RunContext) -> None:
        """Called once before the model is loaded. Raises UserError if a setting contradicts it."""
        self.context = context

    def notes(self) -> Sequence[str]:
        """What the user should know when the run starts, a line each."""
        return ()

    @property
    def itself(self) -> Reward[Any]:
        """The reward itself, or the one that it hands some of the responses to."""
        return self

    def applies_to_task(self, task: str) -> bool:
        """Whether it may apply to rows of this task of a mix."""
        return True

    @abstractmethod
    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One value per completion; None = does not apply.

        Chat prompts and completions are message lists. `columns` holds `completion_ids`,
        `finish_reasons` ("stop", "length") and every column of the task, one entry per completion.
        """

    def counts(self) -> dict[str, int]:
        """Events since the last call ("errors", "timeouts", "lost"); the counts are then reset.

        Each is a metric, `reward/<event>`.
        """
        return {}

    def close(self) -> None:
        """Release workers."""


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
    says what it did. Prompts that are messages always take the template."""

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

    def score(self, completion: str, row: Mapping[str, Any]) -> float:
        """The task's own reward for a completion; only if `scores` is true."""
        raise TypeError(f"{type(self).__name__} has no scorer of its own")

    scores: ClassVar[bool] = False


class Tracker(Part[C]):
    """Receives metrics, and, if it asks for them, responses and checkpoints.

    Nothing that it does may change what a run computes.
    """

    @abstractmethod
    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Begin, or continue the run `run_id`; return the id to continue with later, if any."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one training step or one evaluation."""

    def wants_samples(self, step: int) -> bool:
        """Whether `log_samples` is called for the responses of this training step."""
        return False

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record responses that a step trained on, before the step's metrics come.

        Each has prompt (text or messages), response, reward, rewards (by name), age, length,
        finish_reason, advantage and, unless its update was skipped, ratio: the mean over its tokens
        of its advantage, and of its ratio to the policy that sampled it.
        """

    def log_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint lies at `path`; later ones may replace it."""

    def begin(self, step: int) -> None:
        """Called after `start`: the run goes on after `step`, which is 0 for a new one."""

    def message(self, text: str) -> None:
        """Show the user a line."""

    def progress(self, task: str, done: int, of: int) -> None:
        """Show the user how far a task inside a step is; many such calls may come."""

    def close(self, *, failed: bool) -> None:
        """End the run."""
