"""Each check of a tracker catches one that is broken in its way."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import rlkit
from rlkit.interfaces import Tracker
from rlkit.testing import check_tracker
from rlkit.testing import trackers as kit


class Sound(Tracker):
    """Writes lines."""

    file: Any = None

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        self.file = (Path(run_dir) / "lines").open("a")
        return run_id or "an id"

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.file.write(f"{step} {dict(metrics)}\n")

    def close(self, *, failed: bool) -> None:
        if self.file is not None:
            self.file.close()


class Numbered(Sound):
    """Gives no text as id."""

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> Any:
        super().start(run_dir, config, run_id)
        return 7


class Hasty(Sound):
    """Closes what may not be open."""

    def close(self, *, failed: bool) -> None:
        assert self.file is not None, "nothing was opened"
        self.file.close()


class Drawing(Sound):
    """Draws a name for itself."""

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        super().start(run_dir, config, run_id)
        return f"{random.random()}"


class Shallow(Tracker):
    """Takes every prompt for a text."""

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def wants_samples(self, step: int) -> bool:
        return True

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        assert all(row["prompt"].strip() for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["console", "tensorboard", "wandb"])
def test_the_own_ones_pass(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those whose library is not installed pass with a stand-in, in their own tests."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    check_tracker(rlkit.build("tracker", name))
    check_tracker(Sound())


@pytest.mark.parametrize(
    ("check", "broken", "said"),
    [
        (kit.a_run_is_recorded_and_continued, Numbered, "neither an id nor None"),
        (kit.a_run_may_fail_before_its_first_line, Hasty, "nothing was opened"),
        (kit.draws_are_left_alone, Drawing, "draws from the generator of python"),
    ],
)
def test_a_broken_one_is_caught(
    check: Callable[[Any], None], broken: type[Sound], said: str
) -> None:
    check(Sound())
    with pytest.raises(AssertionError, match=said):
        check(broken())


def test_messages_are_prompts_too() -> None:
    with pytest.raises(AttributeError):
        kit.a_run_is_recorded_and_continued(Shallow())
