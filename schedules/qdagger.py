"""A teacher's pull that fades as the policy catches up: QDagger (arXiv:2206.01626)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from rlkit.errors import UserError, suggest
from rlkit.interfaces import PartConfig, Phase, Progress, ReincarnationSchedule
from rlkit.registry import register


def teacher_weight(score: float, teacher_score: float, weight: float) -> float:
    """weight * max(1 - score / teacher_score, 0)."""
    return weight * max(1 - score / teacher_score, 0)


class QDaggerConfig(PartConfig):
    """Settings of the pull."""

    field: str = "anchor.beta"
    """The number that is set before each step, by section and name: one of the loss, the
    advantage, the buffer, the anchor or a correction, that may be 0. What the configuration says of
    it has no effect."""
    weight: Annotated[float, Field(ge=0)] = 0.1
    """The number's value at a score of 0. The paper has 3 for Atari, no source one for language
    models."""
    metric: str = "eval/pass@1"
    """The score of the latest evaluation that is compared with the teacher's; higher is better and
    0 is the worst."""
    teacher_score: Annotated[float, Field(gt=0)] = 1.0
    """The teacher's score on the same evaluation, from which on it has nothing to teach."""
    decay_steps: Annotated[int, Field(ge=0)] = 100
    """Last step with a teacher; from the next on the number is 0. The paper's decay period is 1.5
    million environment steps."""


@register("schedule", "qdagger")
class QDagger(ReincarnationSchedule[QDaggerConfig]):
    """The nearer the policy is to its teacher, the less it is held to it; in the end not at all.

        field = weight max(1 - score / teacher_score, 0)       up to step decay_steps, then 0

    With the default field the teacher is the anchor's reference; with anchor=base it is the policy
    the run starts from, which pulls if the score falls below its own. There is no rebirth.

    Source: QDagger (arXiv:2206.01626). Status: adapted. The coefficient is the paper's; its term is
    the distillation of action values, in a second phase after one on the teacher's data alone. The
    form for language models, a coefficient of a KL penalty, is ours.
    """

    sources = ("2206.01626",)

    def phase(self, progress: Progress) -> Phase:
        """The phase "teacher" up to step `decay_steps`, then "alone"."""
        c = self.config
        if progress.step > c.decay_steps:
            return Phase(name="alone", values={c.field: 0.0})
        if c.metric not in progress.eval:
            raise UserError(
                f"schedule.metric: there is no '{c.metric}' among the evaluation's figures."
                f"{suggest(c.metric, list(progress.eval))}"
            )
        value = teacher_weight(progress.eval[c.metric], c.teacher_score, c.weight)
        return Phase(name="teacher", values={c.field: value})

    def fields(self) -> Mapping[str, Sequence[float]]:
        """The one field, from 0 to the weight."""
        return {self.config.field: (self.config.weight, 0.0)}
