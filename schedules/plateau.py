"""A rebirth when the evaluation stalls, and ProRL's reset (arXiv:2505.24864)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlkit.errors import UserError, suggest
from rlkit.interfaces import Phase, Progress, ReincarnationSchedule, State
from rlkit.registry import register, variant
from schedules.events import EventsConfig


class PlateauConfig(EventsConfig):
    """Settings of the trigger and of what follows it."""

    metric: str = "eval/pass@1"
    """The score of the evaluation that is watched; higher is better."""
    min_delta: Annotated[float, Field(ge=0)] = 0.005
    """An evaluation is better only if it is above the best one by more than this."""
    patience: Annotated[int, Field(ge=1)] = 3
    """It fires after so many evaluations in a row that are not better."""
    cooldown: Annotated[int, Field(ge=0)] = 3
    """Evaluations after a firing that do not count."""
    max_firings: Annotated[int, Field(ge=1)] | None = 1
    """How often it fires at most; null = any number of times."""
    replay_after: bool = False
    """Whether stored responses are trained on after the first firing."""
    updates_after: Annotated[int, Field(ge=1)] | None = 1
    """Passes over each batch after the first firing; null = train.updates_per_batch."""


@register("schedule", "plateau")
class Plateau(ReincarnationSchedule[PlateauConfig]):
    """ReMix's reincarnation when the score stalls, instead of at a fixed step.

    It fires before the step that follows the `patience`-th evaluation in a row without a score
    above best + min_delta. After a firing the search for the best score starts again.

    Status: our choice. ReMix (arXiv:2507.06892) names the fixed T as its limitation, and no source
    gives a formula. Each firing is counted in `schedule/rebirths` if it rebases.
    """

    sources = ("2507.06892",)

    def __init__(self, config: PlateauConfig | None = None) -> None:
        super().__init__(config)
        self.best: float | None = None
        self.stale = 0
        self.waiting = 0
        self.seen = -1
        self.fired = 0

    def phase(self, progress: Progress) -> Phase:
        """The phase "before" up to the first firing, then "after"."""
        c = self.config
        fires = self._fires(progress)
        self.fired += int(fires)
        if self.fired == 0:
            return Phase(name="before")
        return Phase(
            name="after",
            replay=c.replay_after,
            updates_per_batch=c.updates_after,
            events=c.events() if fires else frozenset(),
        )

    def _fires(self, progress: Progress) -> bool:
        """Look at the evaluation if it is a new one."""
        c = self.config
        if progress.eval_step == self.seen or not progress.eval:
            return False
        self.seen = progress.eval_step
        if c.metric not in progress.eval:
            raise UserError(
                f"schedule.metric: there is no '{c.metric}' among the evaluation's figures."
                f"{suggest(c.metric, list(progress.eval))}"
            )
        if self.waiting > 0:
            self.waiting -= 1
            return False
        score = progress.eval[c.metric]
        if self.best is None or score > self.best + c.min_delta:
            self.best, self.stale = score, 0
            return False
        self.stale += 1
        if self.stale < c.patience or self.fired == c.max_firings:
            return False
        self.best, self.stale, self.waiting = None, 0, c.cooldown
        return True

    def state_dict(self) -> State:
        """What it has seen."""
        names = ("best", "stale", "waiting", "seen", "fired")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: State) -> None:
        """Take back what it has seen."""
        for name, value in state.items():
            setattr(self, name, value)


prorl = variant(
    "prorl",
    of=Plateau,
    reset_optimizer=True,
    max_firings=None,
    replay_after=True,
    updates_after=None,
    sources=("2505.24864",),
    doc="""ProRL (arXiv:2505.24864): reference and optimizer are reset when validation stagnates.

    It fires as often as the score stalls and leaves replay as it is. Status: adapted. Its authors
    decided by hand, in eight runs; here `plateau` decides.
    """,
)
