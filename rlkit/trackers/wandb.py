"""Weights & Biases, online or offline."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlkit.errors import UserError
from rlkit.interfaces import Tracker
from rlkit.registry import register
from rlkit.trackers.best import Best
from rlkit.trackers.samples import COLUMNS, SamplesConfig, cells, spread
from rlkit.trackers.settings import flat_settings, group_of
from rlkit.trackers.wandb_files import last_step

if TYPE_CHECKING:
    import wandb

STEP, ROLLOUTS = "step", "rollouts/total"
PROJECT = "rlkit"
AUTO = "auto"
STATE = "state"
"""The folder of a checkpoint that is only needed to resume."""


class WandbConfig(SamplesConfig):
    """What the run is called on W&B and what is sent there."""

    project: str | None = None
    """Project of the run; null = what WANDB_PROJECT says, else rlkit. A sweep's runs stay in its
    project."""
    entity: str | None = None
    """User or team; null = what WANDB_ENTITY says, else the login's default."""
    run_name: str | None = None
    """Displayed name; null = the run folder's."""
    group: str | None = AUTO
    """Group of runs; auto = what WANDB_RUN_GROUP says, else the runs that differ by their seed
    alone; null = none."""
    tags: tuple[str, ...] = ()
    """Tags of the run."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """online sends while training; offline writes to the run folder, for `wandb sync` later;
    disabled does nothing; null = what WANDB_MODE says, else online."""
    artifacts: Literal["none", "last", "all"] = "none"
    """Which checkpoints are sent: none, the last one when the run ends, or each. They are sent
    without the state that only a resume needs."""


def _refused(error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"W&B did not start: {reason} (tracker.wandb.mode=offline does without)")


@register("tracker", "wandb")
class WandbTracker(Tracker[WandbConfig]):
    """Sends the settings, one key each, and every metric.

    Evaluations are drawn over the responses generated so far, all else over the training step.
    W&B's own step is the training step too, so that what a resumed run adds follows what there is;
    steps that an interrupted run has already sent are not sent again.
    """

    _run: wandb.Run | None = None
    _best: Best
    _known: int | None = None
    """The last step that W&B has from before a resume."""
    _last: Path | None = None
    """The newest checkpoint."""

    def require(self) -> None:
        """Raise UserError if W&B would ask for a login, or refuses the one there is."""
        import wandb

        try:
            known = self._mode() not in ("online", "run") or wandb.login(prompt=False)
        except wandb.Error as error:
            raise _refused(error) from error
        if not known:
            raise UserError(
                "W&B has no login here; set tracker.wandb.mode=offline, "
                "or run `wandb login`, or set WANDB_API_KEY"
            )

    def _mode(self) -> str:
        import wandb

        return self.config.mode or str(wandb.setup().settings.mode)

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Begin a run, or continue `run_id`. Raises UserError if W&B does not."""
        import wandb

        Path(run_dir).mkdir(parents=True, exist_ok=True)
        known = None if run_id is None else last_step(Path(run_dir), run_id)
        project, entity, run_id_there = self._place(run_id)
        try:
            self.require()
            self._run = wandb.init(
                project=project,
                entity=entity,
                id=run_id_there,
                name=self.config.run_name or Path(run_dir).name,
                group=self._group(config),
                tags=self.config.tags,
                mode=self.config.mode,
                dir=run_dir,
                config=flat_settings(config),
                resume="allow" if run_id else None,
            )
        except wandb.Error as error:
            raise _refused(error) from error
        if known is None and self._run.starting_step:
            known = self._run.starting_step - 1
        self._known = known if self._run.id == run_id else None  # a sweep's agent names the run
        self._defined: set[str] = set()
        self._best = Best(Path(run_dir))
        self._run.define_metric(STEP, hidden=True)
        return None if self._mode() == "disabled" else self._run.id

    def _place(self, run_id: str | None) -> tuple[str | None, str | None, str | None]:
        """The run's project, entity and id.

        A sweep has said where it goes, and W&B warns of whatever is said besides.
        """
        if os.environ.get("WANDB_SWEEP_ID"):
            return None, None, None
        project = self.config.project or os.environ.get("WANDB_PROJECT") or PROJECT
        return project, self.config.entity, run_id

    def _group(self, config: Mapping[str, Any]) -> str | None:
        """The run's group; None leaves it to WANDB_RUN_GROUP."""
        if self.config.group != AUTO:
            return self.config.group
        return None if os.environ.get("WANDB_RUN_GROUP") else group_of(config)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics together with the step they belong to.

        A training step and an evaluation after it are one row of W&B's history.
        """
        assert self._run is not None
        for key in metrics:
            self._define(key)
        self._log(step, metrics)
        if better := self._best.better(metrics):
            self._run.summary.update(better)

    def wants_samples(self, step: int) -> bool:
        """Every `samples_every` steps."""
        return self.config.samples_due(step)

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table of responses."""
        import wandb

        data: list[Iterable[Any]] = [cells(step, row) for row in spread(rows, self.config.samples)]
        table = wandb.Table(columns=list(COLUMNS), data=data, allow_mixed_types=True)
        self._log(step, {"samples": table})

    def log_checkpoint(self, step: int, path: Path) -> None:
        """Send the checkpoint, or remember it until the run ends."""
        self._last = path
        if self.config.artifacts == "all":
            self._send(path)

    def close(self, *, failed: bool) -> None:
        """Finish the run; a failed one is marked as such."""
        if self._run is None:
            return
        if self.config.artifacts == "last" and self._last is not None:
            self._send(self._last)
        self._run.finish(exit_code=int(failed))
        self._run = self._last = None

    def _define(self, key: str) -> None:
        """Draw a metric over its axis. Of patterns that overlap, W&B would take any."""
        if self._run is not None and key not in self._defined:
            self._defined.add(key)
            over = ROLLOUTS if key.startswith("eval/") else STEP
            self._run.define_metric(key, step_metric=over)

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        """Log a step, unless it was logged before the run was interrupted."""
        if self._run is not None and (self._known is None or step > self._known):
            self._run.log({STEP: step, **values}, step=step)

    def _send(self, path: Path) -> None:
        """Send a checkpoint's model as a version of the run's artifact."""
        import wandb

        assert self._run is not None
        step = int(path.name.rpartition("-")[2])
        artifact = wandb.Artifact(f"checkpoint-{self._run.id}", type="model", metadata={STEP: step})
        for file in sorted(path.rglob("*")):
            inside = file.relative_to(path)
            if file.is_file() and inside.parts[0] != STATE:
                artifact.add_file(str(file), name=inside.as_posix())
        self._run.log_artifact(artifact, aliases=[f"step-{step}", "latest"])
