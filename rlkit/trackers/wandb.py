"""Weights & Biases, online or offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlkit.errors import UserError
from rlkit.interfaces import PartConfig, Tracker
from rlkit.registry import register

if TYPE_CHECKING:
    import wandb

STEP = "step"


class WandbConfig(PartConfig):
    """What the run is called on W&B and whether it is sent there."""

    project: str = "rlkit"
    """Project of the run."""
    entity: str | None = None
    """User or team; null = the login's default."""
    run_name: str | None = None
    """Displayed name; null = the run folder's."""
    group: str | None = None
    """Group of runs, for example the seeds of one setting."""
    tags: tuple[str, ...] = ()
    """Tags of the run."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """online sends while training; offline writes to the run folder, for `wandb sync` later;
    disabled does nothing; null = what WANDB_MODE says, else online."""


@register("tracker", "wandb")
class WandbTracker(Tracker[WandbConfig]):
    """Sends the resolved configuration and every metric, over the key `step`.

    W&B's own step is the training step too, so that what a resumed run adds follows what there is.
    """

    _run: wandb.Run | None = None

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Begin a run, or continue `run_id`. Raises UserError if W&B would ask for a login."""
        import wandb

        mode = self.config.mode or wandb.setup().settings.mode
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        try:
            if mode in ("online", "run") and not wandb.login(prompt=False):
                raise UserError(
                    "W&B has no login here; set tracker.wandb.mode=offline, "
                    "or run `wandb login`, or set WANDB_API_KEY"
                )
            self._run = wandb.init(
                project=self.config.project,
                entity=self.config.entity,
                name=self.config.run_name or Path(run_dir).name,
                group=self.config.group,
                tags=self.config.tags,
                mode=self.config.mode,
                dir=run_dir,
                config=dict(config),
                id=run_id,
                resume="allow" if run_id else None,
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"W&B did not start: {reason} (tracker.wandb.mode=offline does without)"
            ) from error
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("*", step_metric=STEP)
        return None if mode == "disabled" else self._run.id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics together with the step they belong to.

        A training step and an evaluation after it are one row of W&B's history.
        """
        assert self._run is not None
        self._run.log({STEP: step, **metrics}, step=step)

    def close(self, *, failed: bool) -> None:
        """Finish the run; a failed one is marked as such."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None
