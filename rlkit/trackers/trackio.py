"""Trackio: a local dashboard, or one on a Hugging Face Space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.errors import UserError
from rlkit.interfaces import Tracker
from rlkit.registry import register
from rlkit.trackers.library import library
from rlkit.trackers.samples import COLUMNS, SamplesConfig, cells, distributions, spread
from rlkit.trackers.sent import Sent
from rlkit.trackers.settings import flat_settings, group_of


class TrackioConfig(SamplesConfig):
    """Where the run goes."""

    project: str = "rlkit"
    """Project of the run."""
    space_id: str | None = None
    """A Hugging Face Space to send it to; null = what TRACKIO_SPACE_ID says, else it stays here."""
    run_name: str | None = None
    """Name of the run, under which it is continued; null = the run folder's."""
    group: str | None = None
    """Group of runs; null = the runs that differ by their seed alone."""


@register("tracker", "trackio")
class TrackioTracker(Tracker[TrackioConfig]):
    """Logs settings, metrics over the training step, tables of responses and histograms."""

    _library: Any = None
    _run: Any = None
    _sent: Sent

    def require(self) -> None:
        """Raise UserError if Trackio is not installed."""
        library("trackio", "trackio")

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Begin a run, or continue the one named `run_id`. Raises UserError if Trackio refuses."""
        self._library = library("trackio", "trackio")
        name = run_id or self.config.run_name or Path(run_dir).name
        try:
            self._run = self._library.init(
                project=self.config.project,
                name=name,
                group=self.config.group or group_of(config),
                space_id=self.config.space_id,
                config=flat_settings(config),
                resume="allow" if run_id else "never",
                embed=False,
            )
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"Trackio did not start: {reason}") from error
        self._sent = Sent(Path(run_dir) / "trackio.step", resumed=run_id is not None)
        return str(self._run.name)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics, unless the run logged them before it was interrupted."""
        if self._sent.begins(step):
            self._run.log(dict(metrics), step=step)
            self._sent.note()

    def wants_samples(self, step: int) -> bool:
        """Every `samples_every` steps."""
        return self.config.samples_due(step)

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table of responses, and histograms over all of the step's."""
        if not self._sent.is_new(step):
            return
        data = [cells(step, row) for row in spread(rows, self.config.samples)]
        found: dict[str, Any] = {"samples": self._library.Table(columns=list(COLUMNS), data=data)}
        for name, values in distributions(rows).items():
            found[f"samples/{name}"] = self._library.Histogram(values)
        self._run.log(found, step=step)

    def close(self, *, failed: bool) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None
