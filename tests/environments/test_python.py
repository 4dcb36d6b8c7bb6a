from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rlkit.environments.host import found
from rlkit.environments.own import bound, schema
from rlkit.environments.python import Python, PythonConfig
from rlkit.interfaces import Environment
from tests.environments.asking import call, contents, events, opened, start

STUBBORN = """
import time
while True:
    try:
        time.sleep(9)
    except BaseException:
        pass
"""


@pytest.fixture(scope="module")
def python() -> Iterator[Environment[Any]]:
    environment = opened(Python(PythonConfig(time_limit=0.5, memory_mb=128)))
    yield environment
    environment.close()


def said(environment: Environment[Any], *codes: str) -> list[str]:
    (observation,) = environment.step([0], ["".join(call("python", code=code) for code in codes)])
    return contents(observation)


def test_code_prints_and_names_are_kept_within_an_episode(python: Environment[Any]) -> None:
    python.begin([start(0), start(1)])
    assert said(python, "x = 3\nprint('a')", "x + 1", "import math; math.comb(x, 2)") == [
        "a",
        "4",
        "3",
    ]
    (other,) = python.step([1], [call("python", code="x")])
    assert "NameError" in contents(other)[0]
    assert events(other) == {"calls": 1, "failed_calls": 1}


def test_names_may_be_forgotten() -> None:
    environment = opened(Python(PythonConfig(keep_names=False)))
    environment.begin([start(0)])
    assert said(environment, "x = 3", "x")[1].endswith("NameError: name 'x' is not defined")
    environment.close()


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd').read()",
        "open('note.txt', 'w')",
        "import os; os.listdir('/')",
        "import os; os.system('true')",
        "import os; os.fork()",
        "import os; os.kill(os.getppid(), 9)",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1')",
        "import ctypes; ctypes.CDLL(None)",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "__import__('rlkit.testing')",
        "import sys; sys.modules['rlkit.environments.jail'].LIBRARY = ('',); open('/etc/hostname')",
    ],
)
def test_code_reaches_nothing_outside(python: Environment[Any], code: str) -> None:
    python.begin([start(0)])
    (text,) = said(python, code)
    assert "PermissionError" in text or "ModuleNotFoundError" in text or "URLError" in text
    assert said(python, "1 + 1") == ["2"]


def test_it_gets_no_environment_variables_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_4711")
    environment = opened(Python())
    environment.begin([start(0)])
    assert said(environment, "import os; os.environ.get('HF_TOKEN')") == [""]
    environment.close()


def test_time_and_memory_are_limited_and_the_names_stay(python: Environment[Any]) -> None:
    python.begin([start(0)])
    assert said(python, "x = 3", "while True: pass", "y = bytearray(10**9)", "x") == [
        "",
        "{'error': 'no result after 0.5 s'}",
        'Traceback (most recent call last):\n  File "<code>", line 1, in <module>\nMemoryError',
        "3",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "why"),
    [
        (STUBBORN, "no result after"),
        ("import os; os._exit(0)", "the process of the tool died"),
    ],
)
def test_code_that_cannot_be_stopped_is_killed_and_the_next_call_starts_anew(
    python: Environment[Any], code: str, why: str
) -> None:
    python.begin([start(0)])
    said(python, "x = 3")
    (observation,) = python.step([0], [call("python", code=code)])
    assert not observation.done and why in contents(observation)[0]
    assert "its state is lost" in contents(observation)[0]
    assert "NameError" in said(python, "x")[0]


@pytest.mark.parametrize(
    "value",
    ['{"error": "no"}', '{"value": {"answers": [], "done": false}}', '{"value": 3}', "[]"],
)
def test_what_code_writes_in_the_place_of_answers_ends_its_process_and_not_the_run(
    python: Environment[Any], value: str
) -> None:
    """The socket is a descriptor of the process, which its code may write to."""
    python.begin([start(0)])
    said(python, "x = 3")
    code = f"""
import os, stat
for fd in range(3, 99):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.write(fd, {value!r}.encode() + b"\\n")
    except OSError:
        pass
while True:
    pass
"""
    (observation,) = python.step([0], [call("python", code=code)])
    assert "the process of the tool died" in contents(observation)[0]
    assert events(observation)["lost"] == 1
    assert "NameError" in said(python, "x")[0]


def test_its_schema_is_what_transformers_makes_of_its_method() -> None:
    cls = found(str(Python.factory))
    assert [schema(bound(cls, "python"), "python")] == list(Python.functions)


def test_it_says_what_a_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("rlkit.environments.python.offered", lambda: True)
    (note,) = Python().notes()
    assert "no filter of system calls" in note
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("sys.platform", "linux")
    assert not Python().notes()
    monkeypatch.setattr("rlkit.environments.python.offered", lambda: False)
    (note,) = Python().notes()
    assert "no Landlock" in note and "run in a container" in note
