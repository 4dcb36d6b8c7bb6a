"""A user's mistake becomes one line and status 2; other errors pass."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.errors import HydraException

from rlkit.composition import guard
from rlkit.composition.guard import USER_ERROR, guarded, in_words, leave
from rlkit.errors import UserError
from rlkit.interrupts import INTERRUPTED


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "RLKIT_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def raising(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("two\n  lines"), USER_ERROR, "rlkit: two lines\n"),
        (HydraException("first\nsecond"), USER_ERROR, "rlkit: first\n"),
        (KeyboardInterrupt(), INTERRUPTED, "rlkit: stopped at once;"),
    ],
)
def test_a_mistake_is_one_line(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(raising(error)) == status
    assert capsys.readouterr().err.startswith(said)


def test_what_goes_well_is_silent_and_other_errors_pass(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert guarded(lambda: None) == 0
    with pytest.raises(KeyError):
        guarded(raising(KeyError("x")))
    assert capsys.readouterr().err == "" and in_words(KeyError("x")) is None


def test_for_debugging_a_mistake_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLKIT_DEBUG", "1")
    with pytest.raises(UserError):
        guarded(raising(UserError("x")))


def test_of_several_processes_a_later_one_waits_and_says_who_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(guard, "time", SimpleNamespace(sleep=calls.append))
    monkeypatch.setattr(os, "_exit", calls.append)
    assert leave("wrong") == USER_ERROR
    assert capsys.readouterr().err == "rlkit: (process 1) wrong\n"
    assert calls == [guard.PATIENCE, USER_ERROR]
