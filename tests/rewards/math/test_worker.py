"""The math reward's worker: what it refuses to do, and how it tells a want of memory."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from rlkit.rewards.math import equal as math_equal
from rlkit.rewards.math import worker as math_worker
from rlkit.rewards.math.worker import judge
from tests.rewards.processes import script


@pytest.mark.parametrize(
    "code",
    [
        "os.system('touch touched')",
        "open('touched', 'w')",
        "os.open('touched', os.O_CREAT | os.O_WRONLY)",
        "subprocess.run(['touch', 'touched'])",
        "os.fork()",
        "socket.create_connection(('127.0.0.1', 9))",
        "os.kill(os.getppid(), 0)",
        "os.remove('kept')",
        "ctypes.CDLL(None)",
    ],
)
def test_a_worker_may_not_write_start_or_connect(tmp_path: Path, code: str) -> None:
    (tmp_path / "kept").touch()
    running = script(
        tmp_path,
        f"""
        import ctypes, os, socket, subprocess
        from rlkit.rewards.math.worker import refuse_side_effects

        refuse_side_effects()
        import colorsys
        open("kept").read()
        try:
            {code}
        except PermissionError as error:
            print(error)
        """,
    )
    out, err = running.communicate(timeout=60)
    assert "the math worker may not use" in out, err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "script.py"]


def test_a_running_worker_refuses_side_effects_and_prints_nothing_but_replies(
    tmp_path: Path,
) -> None:
    running = script(
        tmp_path,
        """
        from rlkit.rewards.math import worker as math_worker

        def matches(gold, text, tolerance):
            print("noise", flush=True)
            return gold != "x" and bool(open(text, "w"))

        math_worker.matches = matches
        math_worker.main(None)
        """,
    )
    out, err = running.communicate(
        '{"gold": "2", "text": "touched", "tolerance": 0, "alarm": 9}\n', timeout=60
    )
    ready, reply = map(json.loads, out.splitlines())
    assert ready == {"ready": True}
    refused = "raised PermissionError: the math worker may not use open"
    assert reply == {"limit": refused, "retire": False}
    assert not (tmp_path / "touched").exists()
    assert err == "noise\n"


@pytest.mark.slow
def test_a_swallowed_memory_error_is_a_limit_unless_the_answer_is_right(tmp_path: Path) -> None:
    running = script(
        tmp_path,
        """
        from rlkit.rewards.math import worker as math_worker

        def hoard(gold, text, tolerance):
            kept = []
            try:
                while text == "large":
                    kept.append(bytearray(1 << 20))
            except MemoryError:
                pass
            if gold == "raises":
                raise TypeError
            return gold == "right"

        math_worker.matches = hoard
        suspect = math_worker.limit_memory(1024)
        for gold, text in [("wrong", "small"), ("right", "small"), ("wrong", "large")]:
            print(math_worker.judge(gold, text, 0.0, suspect))
        print(math_worker.judge("right", "small", 0.0, suspect))
        print(math_worker.judge("raises", "small", 0.0, suspect))
        print(math_worker.judge("wrong", "small", 0.0, None))
        """,
    )
    out, err = running.communicate(timeout=60)
    assert [ast.literal_eval(line) for line in out.splitlines()] == [
        {"score": 0.0, "retire": False},
        {"score": 1.0, "retire": False},
        {"limit": "MemoryError", "retire": True},
        {"score": 1.0, "retire": True},
        {"limit": "MemoryError", "retire": True},
        {"score": 0.0, "retire": False},
    ], err


def breaks(*arguments: object) -> bool:
    """A comparison that meets a defect of the algebra system."""
    raise TypeError("no order")


def test_an_exception_over_the_gold_is_an_error_and_never_a_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(math_equal, "gold_text", breaks)
    assert judge("4", r"\boxed{4}", 0.0) == {"error": "TypeError: no order", "retire": False}


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_a_want_of_memory_or_stack_is_a_limit(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def exhausted(*arguments: object) -> bool:
        raise error

    monkeypatch.setattr(math_worker, "matches", exhausted)
    assert judge("4", r"\boxed{5}", 0.0) == {"limit": error.__name__, "retire": False}
