"""What an evaluation's responses are compared with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from rlkit.interfaces import PartConfig


class Against(PartConfig):
    """Reference responses, and the reward that decides who wins: eval/win_rate."""

    responses: Annotated[str, Field(min_length=1)] | None = None
    """The column of the task with a reference response (or a list of them) to each problem, or a
    file of answers: answers.parquet of `rlkit eval`, evaluations/step-N.parquet of a run. null =
    none, and there is no win rate."""
    reward: str | None = None
    """Name of the reward whose scores are compared, such as a gold reward model; null = that of
    eval.reward."""

    @model_validator(mode="after")
    def _has_responses(self) -> Against:
        if self.reward is not None and self.responses is None:
            raise ValueError(
                f"eval.against.reward={self.reward} compares with eval.against.responses, which is "
                "not set: name a column or a file of answers"
            )
        return self
