"""The interface of a reward: what scores responses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from typing_extensions import TypeVar

from rlkit.interfaces.part import Part, PartConfig, RunContext


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
