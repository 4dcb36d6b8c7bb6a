"""TensorBoard: one scalar per metric key, responses and their distributions, in the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlkit.interfaces import Tracker
from rlkit.registry import register
from rlkit.trackers.samples import SamplesConfig, as_text, distributions, spread
from rlkit.trackers.settings import flat_settings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SCORE = "eval/pass@1"
"""The metric by which TensorBoard compares settings."""


class TensorBoardConfig(SamplesConfig):
    """What is written besides metrics."""

    histograms: bool = True
    """Whether rewards, advantages, ages, ratios and lengths of a step's responses are written as
    histograms, in the steps of `samples_every`."""
    hparams: bool = True
    """Whether settings are written for TensorBoard's page that compares runs by them."""


@register("tracker", "tensorboard")
class TensorBoardTracker(Tracker[TensorBoardConfig]):
    """Event files under <output_dir>/tensorboard: `tensorboard --logdir runs`."""

    _folder: Path
    _settings: Mapping[str, Any]
    _writer: SummaryWriter | None = None

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Remember where to write; a resumed run continues in the same folder."""
        self._folder = Path(run_dir) / "tensorboard"
        self._settings = flat_settings(config)
        return None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write each metric under its own key."""
        writer = self._writer or self._open(step)
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)

    def wants_samples(self, step: int) -> bool:
        """Every `samples_every` steps, for the responses or the histograms."""
        config = self.config
        return config.samples_due(step) or (
            config.histograms and (step - 1) % config.samples_every == 0
        )

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write responses as text, and histograms over all of the step's."""
        writer = self._writer or self._open(step)
        chosen = spread(rows, self.config.samples)
        if chosen:
            writer.add_text("samples", "\n\n".join(map(as_markdown, chosen)), step)
        for name, values in distributions(rows).items() if self.config.histograms else ():
            writer.add_histogram(f"samples/{name}", _array(values), step)

    def close(self, *, failed: bool) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, step: int) -> SummaryWriter:
        """A writer whose first event hides what an interrupted run logged from this step on."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._writer = writer = SummaryWriter(log_dir=str(self._folder), purge_step=step)
        settings = json.dumps(self._settings, indent=2, default=str)
        writer.add_text("config", literal(settings), step)
        if self.config.hparams:
            plain = {key: _plain(value) for key, value in self._settings.items()}
            for summary in hparams(plain, {SCORE: 0.0}):  # type: ignore[no-untyped-call]
                writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
        return writer


def literal(text: str) -> str:
    """Text that markdown shows as it is: every line is indented."""
    return "\n".join(f"    {line}" for line in text.split("\n"))


def as_markdown(row: Mapping[str, Any]) -> str:
    """A response with its prompt and its figures."""
    shown = ("reward", "advantage", "age", "ratio", "length")
    numbers = [f"{name} {row[name]:.4g}" for name in shown if row.get(name) is not None]
    texts = literal(as_text(row["prompt"])), literal(str(row["response"]))
    return "\n\n".join(["**" + ", ".join(numbers) + "**", *texts])


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


def _array(values: Sequence[float]) -> Any:
    import numpy

    return numpy.asarray(values)
