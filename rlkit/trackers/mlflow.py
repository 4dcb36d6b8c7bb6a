"""MLflow, through its client: nothing of the process-wide state of `mlflow` is used."""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.errors import UserError
from rlkit.interfaces import Tracker
from rlkit.registry import register
from rlkit.trackers.library import library
from rlkit.trackers.samples import COLUMNS, SamplesConfig, cells, spread
from rlkit.trackers.sent import Sent
from rlkit.trackers.settings import flat_settings, group_of

EXPERIMENT = "rlkit"
AT_ONCE = 100
"""How many settings MLflow takes in a request."""
LONGEST = 6000
"""Characters of a setting's value that MLflow takes."""
REFUSED = re.compile(r"[^\w\-. :/]")
"""What a name may not hold on MLflow."""


def allowed(name: str) -> str:
    """A name that MLflow takes: "eval/pass@1" is "eval/pass_at_1" there."""
    return REFUSED.sub("_", name.replace("@", "_at_"))


class MLflowConfig(SamplesConfig):
    """Where the run goes."""

    tracking_uri: str | None = None
    """Server or folder; null = what MLFLOW_TRACKING_URI says, else MLflow's default."""
    experiment: str | None = None
    """Experiment of the run; null = what MLFLOW_EXPERIMENT_NAME says, else rlkit."""
    run_name: str | None = None
    """Displayed name; null = the run folder's."""


@register("tracker", "mlflow")
class MLflowTracker(Tracker[MLflowConfig]):
    """Sends settings as parameters, metrics over the training step, and responses as JSON files.

    The tag `group` is shared by runs that differ by their seed alone. A server that fails during
    the run is left alone from then on, and a line says so: metrics.jsonl has everything.
    """

    _client: Any = None
    _entities: Any = None
    _run: str
    _sent: Sent

    def require(self) -> None:
        """Raise UserError if MLflow is not installed."""
        library("mlflow", "mlflow")

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Begin a run, or continue `run_id`. Raises UserError if MLflow refuses."""
        mlflow = library("mlflow", "mlflow")
        self._entities = importlib.import_module("mlflow.entities")
        try:
            client = mlflow.MlflowClient(tracking_uri=self.config.tracking_uri)
            if run_id is None:
                run_id = self._new(client, Path(run_dir), config)
                self._sent = Sent(Path(run_dir) / "mlflow.step", resumed=False)
            else:
                client.update_run(run_id, status="RUNNING")
                self._sent = Sent(Path(run_dir) / "mlflow.step", resumed=True)
        except Exception as error:
            raise UserError(f"MLflow did not start: {_reason(error)}") from error
        self._client, self._run = client, run_id
        return run_id

    def _new(self, client: Any, run_dir: Path, config: Mapping[str, Any]) -> str:
        name = self.config.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = client.get_experiment_by_name(name)
        made = client.create_run(
            found.experiment_id if found is not None else client.create_experiment(name),
            run_name=self.config.run_name or run_dir.name,
            tags={"group": group_of(config)},
        )
        run_id: str = made.info.run_id
        settings = flat_settings(config)
        param = self._entities.Param
        params = [param(allowed(key), str(value)[:LONGEST]) for key, value in settings.items()]
        for first in range(0, len(params), AT_ONCE):
            client.log_batch(run_id, params=params[first : first + AT_ONCE])
        return run_id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics, unless the run sent them before it was interrupted."""
        if self._client is None or not self._sent.begins(step):
            return
        now, metric = time.time_ns() // 10**6, self._entities.Metric
        found = [metric(allowed(key), float(value), now, step) for key, value in metrics.items()]
        self._send(lambda: self._client.log_batch(self._run, metrics=found))
        self._sent.note()

    def wants_samples(self, step: int) -> bool:
        """Every `samples_every` steps."""
        return self._client is not None and self.config.samples_due(step)

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send responses as a file."""
        if self._client is None or not self._sent.is_new(step):
            return
        chosen = spread(rows, self.config.samples)
        table = [dict(zip(COLUMNS, cells(step, row), strict=True)) for row in chosen]
        file = f"samples/step-{step}.json"
        self._send(lambda: self._client.log_dict(self._run, {"samples": table}, file))

    def close(self, *, failed: bool) -> None:
        """End the run; a failed one is marked as such."""
        if self._client is not None:
            status = "FAILED" if failed else "FINISHED"
            self._send(lambda: self._client.set_terminated(self._run, status=status))
            self._client = None

    def _send(self, call: Callable[[], Any]) -> None:
        """Send something; after a failure nothing more is tried."""
        try:
            call()
        except Exception as error:
            self._client = None
            print(
                f"rlkit: MLflow failed ({_reason(error)}); nothing more is sent to it, "
                "metrics.jsonl has everything",
                file=sys.stderr,
            )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
