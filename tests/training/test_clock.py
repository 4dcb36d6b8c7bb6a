"""Timers wait for the device before they read the clock."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rlkit.training.clock import TIMERS, Clock

GPU = torch.device("cuda", 1)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was waited for and read, in order; each reading is a second later."""
    seen: list[object] = []

    def read() -> float:
        seen.append("read")
        return float(seen.count("read"))

    monkeypatch.setattr(torch.cuda, "synchronize", seen.append)
    monkeypatch.setattr("rlkit.training.clock.time", SimpleNamespace(perf_counter=read))
    return seen


def test_the_device_in_use_is_waited_for_before_each_reading(log: list[object]) -> None:
    clock = Clock(GPU)
    clock.restart()
    with clock.timed("update"):
        pass
    assert clock.elapsed == 3
    assert log == [GPU, "read"] * 5


def test_seconds_add_up_under_their_name_and_start_again_with_a_step(log: list[object]) -> None:
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        with clock.timed("forward"):
            pass
    assert clock.seconds == dict.fromkeys(TIMERS, 0.0) | {"forward": 2.0}
    clock.restart()
    assert not any(clock.seconds.values()) and GPU not in log
