"""TensorBoard: one scalar per metric key, in the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlkit.interfaces import Tracker
from rlkit.registry import register

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@register("tracker", "tensorboard")
class TensorBoardTracker(Tracker):
    """Event files under <output_dir>/tensorboard: `tensorboard --logdir runs`."""

    _folder: Path
    _config: str
    _writer: SummaryWriter | None = None

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Remember where to write; a resumed run continues in the same folder."""
        self._folder = Path(run_dir) / "tensorboard"
        self._config = json.dumps(config, indent=2, default=str)
        return None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write each metric under its own key."""
        writer = self._writer or self._open(step)
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)

    def close(self, *, failed: bool) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, step: int) -> SummaryWriter:
        """A writer whose first event hides what an interrupted run logged from this step on."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=str(self._folder), purge_step=step)
        self._writer.add_text("config", f"<pre>{self._config}</pre>", step)
        return self._writer
