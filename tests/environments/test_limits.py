from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from rlkit.environments.limits import OutOfTime, gathered, guarded, in_time, limited


def forever() -> None:
    while True:
        time.sleep(0.01)


async def later(value: Any, seconds: float = 0.0) -> Any:
    await asyncio.sleep(seconds)
    if isinstance(value, Exception):
        raise value
    return value


def test_python_code_is_interrupted_and_the_alarm_is_off_afterwards() -> None:
    assert in_time(0.05, lambda: 3) == 3
    with pytest.raises(OutOfTime):
        in_time(0.05, forever)
    time.sleep(0.1)


def test_a_call_that_fails_is_a_value() -> None:
    assert guarded(1, lambda: 3) == 3
    assert isinstance(guarded(0.05, forever), OutOfTime)
    assert isinstance(guarded(1, lambda: [][1]), IndexError)

    def leave() -> None:
        raise SystemExit(3)

    assert str(guarded(1, leave)) == "SystemExit: 3"


def test_awaitables_run_side_by_side_each_in_its_time() -> None:
    mine = TimeoutError("mine")
    out = asyncio.run(gathered([later(1), later(2, 9), later(ValueError("x")), later(mine)], 0.05))
    assert out[0] == 1 and isinstance(out[1], OutOfTime)
    assert isinstance(out[2], ValueError) and out[3] is mine
    with pytest.raises(OutOfTime):
        asyncio.run(limited(later(1, 9), 0.05))
    with pytest.raises(TimeoutError, match="mine"):
        asyncio.run(limited(later(mine), 1))
