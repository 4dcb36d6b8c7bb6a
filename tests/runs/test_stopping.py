"""Signals that ask a run to stop, and the command that goes on with it."""

from __future__ import annotations

import os
import shlex
import signal
import threading

import pytest

from rlkit.runs.stopping import SIGNALS, Stopped, StopRequest, resume_command, stop_on_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_stops_at_once(number: signal.Signals) -> None:
    request, said, before = StopRequest(), list[str](), signal.getsignal(number)
    assert not request()
    with stop_on_signals(request, said.append):
        os.kill(os.getpid(), number)
        assert request() and request.number == number and len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before and len(said) == 1


def test_a_signal_while_a_line_is_being_written_stops_the_run_without_words() -> None:
    """Python refuses to write into a stream from within a write to it."""

    def say(line: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")

    request = StopRequest()
    with stop_on_signals(request, say):
        os.kill(os.getpid(), signal.SIGTERM)
        assert request()


def test_the_status_is_what_a_shell_calls_a_command_that_the_signal_ended() -> None:
    assert Stopped(signal.SIGINT).status == 130 and Stopped(signal.SIGTERM).status == 143


def test_outside_the_main_thread_nothing_changes() -> None:
    found: list[bool] = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with stop_on_signals(StopRequest(), print):
            found.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]


def test_the_command_names_the_folder_and_the_rest_as_it_was() -> None:
    given = ["algorithm=remix", "output_dir=old", "+resume=never", "stop=[a b]"]
    words = shlex.split(resume_command(given, "out dir"))
    assert words[:3] == ["python", "-m", "rlkit.run"]
    assert words[3:] == ["algorithm=remix", "stop=[a b]", "output_dir=out dir", "resume=auto"]
    assert "2 processes" in resume_command(given, "out", 2)
