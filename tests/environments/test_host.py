from __future__ import annotations

import json
import random
import socket
import threading
from typing import Any

import pytest

from rlkit.environments.host import Episode, answer, described, found, seed_all, serve, tool_names
from rlkit.environments.limits import OutOfTime, Told
from tests.environments.asking import INCREMENT, ODD


def test_what_a_path_names_is_found() -> None:
    assert found("json:dumps") is json.dumps
    assert found(f"{INCREMENT}:IncrementEnv").__name__ == "IncrementEnv"


def test_tools_are_the_public_methods_in_trls_order() -> None:
    class A:
        field = 3

        def reset(self) -> None: ...
        def get_reward(self) -> float:
            return 0.0

        def b(self) -> None: ...
        def a(self) -> None: ...
        def _hidden(self) -> None: ...
        @property
        def done(self) -> bool:
            return False

    assert tool_names(A) == ["a", "b"]


def test_draws_at_the_start_and_behind_it_have_seeds_of_their_own() -> None:
    episode = Episode(found(f"{INCREMENT}:IncrementEnv"), [])
    state = random.getstate()
    try:
        text = episode.reset({}, 5, 6, 1.0)
        after = random.random()
        random.seed(5)
        assert text == f"Increment the counter by {random.randint(1, 6)}."
        random.seed(6)
        assert after == random.random()
    finally:
        random.setstate(state)


def test_numpy_is_seeded_too() -> None:
    import numpy as np

    seed_all(2**40 + 3)
    first = np.random.rand()
    seed_all(2**40 + 3)
    assert np.random.rand() == first


@pytest.mark.parametrize(
    ("value", "text", "failed"),
    [
        (3, "3", False),
        (None, "None", False),
        ([1, 2], "[1, 2]", False),
        ([], "[]", False),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab", False),
        (ValueError("no"), "{'error': 'no'}", True),
        (Told("as it is"), "as it is", True),
        (OutOfTime(2.0), "{'error': 'no result after 2 s'}", True),
        ("\udc80", "?", False),
    ],
)
def test_results_are_trls_texts(value: Any, text: str, failed: bool) -> None:
    late = isinstance(value, OutOfTime)
    assert answer(value, 1.0) == {"text": text, "failed": failed, "late": late}


class Shy:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


class ShyError(Exception):
    def __str__(self) -> str:
        raise KeyError


def test_a_result_that_cannot_be_shown_is_a_failure_and_not_the_end() -> None:
    import numpy as np

    shown = answer([np.zeros(2)], 1.0)
    assert shown == {"text": "[array([0., 0.])]", "failed": False, "late": False}
    failed = {"text": "{'error': 'no'}", "failed": True, "late": False}
    assert answer(Shy(ValueError("no")), 1.0) == failed
    assert answer(Shy(SystemExit("no")), 1.0)["failed"]
    assert answer(ShyError(), 1.0) == {**failed, "text": "{'error': 'ShyError'}"}


def test_the_text_of_a_result_is_made_in_time() -> None:
    class Endless:
        def __str__(self) -> str:
            while True:
                pass

    assert answer(Endless(), 0.05) == {
        "text": "{'error': 'no result after 0.05 s'}",
        "failed": True,
        "late": True,
    }


def test_an_error_is_one_line_with_its_place() -> None:
    def fails() -> None:
        raise ValueError("one\ntwo")

    try:
        fails()
    except ValueError as error:
        text = described(error)
    assert text.startswith("ValueError: one two (") and "test_host.py:" in text


def test_requests_are_answered_until_the_socket_closes() -> None:
    ours, theirs = socket.socketpair()
    journal = found(f"{ODD}:Journal")
    done: list[str] = []

    def run() -> None:
        # Signals work in a main thread alone: nothing here needs an alarm.
        with theirs:
            serve(theirs, lambda: Episode(journal, []), None)
        done.append("ended")

    thread = threading.Thread(target=run)
    thread.start()
    with ours, ours.makefile("rwb") as stream:
        stream.write(b'{"do": "reset", "row": {}, "seed": 1, "later": 2, "limit": 1.0}\n')
        stream.flush()
        assert "error" in json.loads(stream.readline())
    thread.join(10)
    assert done == ["ended"]


def test_the_calls_of_a_turn_have_a_time_together() -> None:
    def loop() -> None:
        while True:
            pass

    def quick() -> str:
        return "5"

    calls: list[dict[str, Any]] = [
        {"name": name, "arguments": {}} for name in ("quick", "loop", "loop", "quick")
    ]
    reply = Episode(None, [loop, quick]).call(calls, 60.0, 0.1)
    texts = [each["text"] for each in reply["answers"]]
    assert texts[0] == "5" and texts[1].startswith("{'error': 'no result after 0.")
    assert texts[2:] == ["{'error': 'not run: the calls of a turn have 0.1 s'}"] * 2
    assert [each["failed"] for each in reply["answers"]] == [False, True, True, True]
    assert [each["late"] for each in reply["answers"]] == [False, True, False, False]
