from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig

import pytest

from rlkit.environments.jail import PROGRAM
from rlkit.environments.landlock import offered

SHUT_IN = """
import os, sys
from rlkit.environments import jail
{how}
try:
    {code}
except BaseException as error:
    print(type(error).__name__, getattr(error, "errno", None))
else:
    print("done")
"""
FILTERED = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="no filter of calls here"
)


def said(how: str, code: str) -> str:
    """What code prints in a process of its own, whose output is a pipe."""
    text = SHUT_IN.format(how=how, code=code)
    run = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=60
    )
    return run.stdout.strip() or run.stderr


@FILTERED
def test_the_filter_of_system_calls_holds_without_the_hook(tmp_path: str) -> None:
    """Native code passes the hook of Python; these calls reach the kernel, which refuses them."""
    codes = [
        "import socket; socket.socket()",
        "import socket; socket.socketpair()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 0)",
        f"os.open({str(tmp_path)!r} + '/a', os.O_WRONLY | os.O_CREAT)",
        f"os.mkdir({str(tmp_path)!r} + '/b')",
        "os.rename('/nowhere', '/elsewhere')",
        "os.chmod('/tmp', 0o777)",
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        "os.sched_setaffinity(0, os.sched_getaffinity(0))",
        "os.setpriority(os.PRIO_PROCESS, 0, 19)",
        "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import ctypes; assert ctypes.CDLL(None).socket(2, 1, 0) >= 0",
    ]
    body = "".join(
        f"    try:\n        {code}\n        print('done: ' + {code!r})\n"
        "    except (PermissionError, AssertionError, ValueError): pass\n"
        for code in codes
    )
    assert said("assert jail.filter_calls()", f"pass\n{body}\n    pass") == "done"


@FILTERED
def test_reading_threads_and_memory_go_on_under_the_filter() -> None:
    code = (
        "import threading, resource; t = threading.Thread(target=len, args=['']); t.start(); "
        "t.join(); open('/etc/passwd').close(); resource.getrlimit(resource.RLIMIT_AS); "
        "import decimal, sqlite3; bytearray(10**7)"
    )
    assert said("assert jail.filter_calls()", code) == "done"


@pytest.mark.parametrize(
    ("code", "out"),
    [
        ("open('/etc/passwd')", "PermissionError None"),
        ("open('/tmp/a', 'w')", "PermissionError None"),
        ("os.listdir('/')", "PermissionError None"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError None"),
        ("import fractions, email.message, json.tool", "done"),
        ("os.environ['A'] = 'b'", "done"),
        ("open('/dev/null').close()", "done"),
    ],
)
def test_the_hook_of_python_holds_without_the_filter(code: str, out: str) -> None:
    assert said("jail.refuse_python()", code) == out


@pytest.mark.skipif(not offered(), reason="the kernel has no Landlock")
def test_the_kernel_refuses_to_read_what_code_that_undid_the_hook_asks_for() -> None:
    how = "jail.refuse_python = lambda: None; jail.shut_in()"
    for path in ("/etc/hostname", f"/proc/{os.getpid()}/environ", "/proc/self/environ", "."):
        assert said(how, f"os.open({path!r}, os.O_RDONLY)") == "PermissionError 13"
    code = (
        "import sqlite3, decimal, json.tool; open(os.__file__).close(); open('/dev/null').close()"
    )
    assert said(how, code) == "done"


def test_memory_is_limited_on_top_of_what_is_there() -> None:
    assert said("jail.limit_memory(64)", "bytearray(10**6)") == "done"
    assert said("jail.limit_memory(64)", "bytearray(10**8)") == "MemoryError None"


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("{lib}/os.py", "done"),
        ("{lib}/./json/../os.py", "done"),
        ("//{lib}//os.py", "done"),
        ("{lib}2/os.py", "PermissionError None"),
        ("{lib}/../../../../../../../../etc/passwd", "PermissionError None"),
        ("pyproject.toml", "PermissionError None"),
    ],
)
def test_paths_are_compared_as_folders(path: str, out: str) -> None:
    path = path.format(lib=sysconfig.get_path("stdlib"))
    assert said("jail.refuse_python()", f"open({path!r}).close()") == out
    assert said("jail.refuse_python()", f"open({path.encode()!r}).close()") == out


@pytest.mark.parametrize(
    "code",
    [
        "jail.LIBRARY = ('',); jail.LISTED = jail.REFUSED = jail.MORE_REFUSED = ()",
        "jail.WRITING = 0; jail.LIBRARY = ('/',)",
        "os.path.abspath = os.path.realpath = lambda p: os.__file__",
        "os.fsdecode = lambda p: os.__file__",
        "import builtins; builtins.isinstance = lambda *a: True; builtins.any = lambda a: True",
        "import builtins; builtins.PermissionError = lambda *a: None",
        "jail.refuse_python.__code__ = (lambda: None).__code__",
        "import gc; gc.get_objects()",
        "import gc; gc.get_referrers(jail.LIBRARY)",
        "sys._current_frames()",
    ],
)
def test_the_hook_cannot_be_undone_through_what_it_shares(code: str) -> None:
    body = f"try:\n        {code}\n    except Exception: pass\n    open('/etc/hostname').close()"
    assert said("jail.refuse_python()", body) == "PermissionError None"


def test_a_path_is_read_as_the_text_that_it_is() -> None:
    code = (
        "P = type('P', (str,), {n: lambda *a: True for n in ('startswith', '__eq__', '__hash__')}"
        " | {'__str__': lambda s: os.__file__, '__repr__': lambda s: 1 / 0, "
        "'split': lambda s, x: ['', os.__file__]}); open(P('/etc/hostname'))"
    )
    assert said("jail.refuse_python()", code) == "PermissionError None"


def test_the_library_still_works_under_the_hook() -> None:
    code = (
        "import collections, dataclasses, enum, typing, asyncio, logging, functools, decimal; "
        "collections.namedtuple('A', 'x y', defaults=[1])(2); logging.getLogger('a').info('b'); "
        "dataclasses.make_dataclass('B', ['x'])(1); enum.Enum('E', 'a b').a"
    )
    assert said("jail.refuse_python()", code) == "done"


def test_jumps_stay_inside_the_filter() -> None:
    for place, (code, true, false, _) in enumerate(PROGRAM):
        assert code & 0x07 != 0x05 or place + 1 + max(true, false) < len(PROGRAM)
    assert len(PROGRAM) < 4096  # the kernel's limit
