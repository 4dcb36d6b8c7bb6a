"""Which prompts a step takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlkit.interfaces import PartConfig


class PromptsConfig(PartConfig):
    """How new prompts are chosen from the task's.

    All but the defaults read pass rates: which share of the responses to a prompt was right, by the
    reward that marks correctness, in the run so far.
    """

    order: Literal["shuffled", "easy_first", "target"] = "shuffled"
    """shuffled = every prompt once per epoch, in an order of the epoch's own; easy_first = the
    same, but each epoch begins with the prompts of the highest pass rate; target = those whose pass
    rate is likely to be near `target`, however often that is, as in BOTS (arXiv:2510.26374)."""
    target: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """With order=target: the pass rate that is looked for. Half right is where a group's rewards
    vary most."""
    forget: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of what is known of pass rates that is forgotten at each training step, since the
    policy changes: half of it in 34 steps at 0.02. BOTS's code forgets 0.2, but also infers the
    rates of prompts that were not asked; 0.02 is our choice."""
    pass_rate_column: str | None = None
    """A column of the task with pass rates from 0 to 1 known beforehand, such as those of another
    model; null = nothing is known of a prompt before its first responses."""
    drop_solved: Annotated[int, Field(ge=1)] | None = None
    """A prompt is left out once this many of its groups in a row were right throughout; null =
    never. If a task has no other prompts left, all of its prompts are taken again."""

    @property
    def reads_pass_rates(self) -> bool:
        """Whether any choice depends on pass rates."""
        return self.order != "shuffled" or self.drop_solved is not None
