"""What a run leaves on disk besides its metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlkit.interfaces import PartConfig

Positive = Annotated[int, Field(ge=1)]


class CheckpointConfig(PartConfig):
    """What is saved to resume a run. Every run ends with a checkpoint."""

    every: Positive | None = 50
    """Training steps between checkpoints; null = only at the end."""
    keep: Positive = 2
    """How many of the newest checkpoints stay on disk, besides the one of the best evaluation."""
    on_error: Literal["continue", "stop"] = "continue"
    """What to do if a checkpoint cannot be written, for whatever reason (a full disk): warn and
    continue, or stop. Earlier checkpoints stay in either case. What can never be saved is found in
    a trial before the first step, and stops the run."""


class CompletionsConfig(PartConfig):
    """Which trained responses are written to completions/step-N.jsonl; the run does not read them.

    Responses of skipped updates are written to nonfinite/ in any case.
    """

    every: Positive | None = 1
    """Training steps between two files completions/step-N.jsonl; null = none is written."""
    max_per_step: Positive | None = None
    """How many responses of a step are written, the first of its batch; null = all."""
    tokens_per_step: Annotated[int, Field(ge=0)] = 2
    """How many groups of a step with such a file also leave what the loss saw of each token
    (log-probs, ratio, clipped or not, advantage) in completions/tokens-step-N.parquet; drawn from
    the seed and the step. 0 = none."""
