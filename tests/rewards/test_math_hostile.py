"""The reward `math` under hostile text, killed workers, threads, and scripts."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlkit.rewards.math import Math, MathConfig
from rlkit.rewards.pool import Verdict

ROOT = Path(__file__).resolve().parents[2]
BOMB = "9**9**9**9"
RIGHT = r"\boxed{7}"


@pytest.fixture(scope="module")
def reward() -> Iterator[Math]:
    made = Math(MathConfig(timeout=2.0, max_chars=200_000, workers=2))
    yield made
    made.close()


def marks(reward: Math, texts: list[str]) -> list[float | None]:
    n = len(texts)
    return reward([""] * n, texts, answer=["7"] * n, completion_ids=[[]] * n)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_hostile_text_gets_zero_and_the_others_their_mark(reward: Math) -> None:
    start = time.monotonic()
    long_sum = r"\boxed{" + "1+" * 50_000 + "1}"
    braces = r"\boxed" + "{" * 5000 + "7" + "}" * 5000
    brackets = "the answer is " + "(" * 5000 + "7" + ")" * 5000
    texts = [BOMB, RIGHT, long_sum, RIGHT, braces, RIGHT, brackets, RIGHT]
    found = marks(reward, texts)
    assert found[1::2] == [1.0] * 4
    assert found[0] == found[2] == found[4] == 0.0
    counts = reward.counts()
    assert counts.keys() == {"timeouts"}
    assert counts["timeouts"] >= 2
    assert time.monotonic() - start < 20


def test_code_in_a_completion_is_not_run(
    reward: Math, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = tmp_path / "touched"
    call = f"__import__('os').system('touch {touched}')"
    wraps = ["%s", r"\boxed{%s}", "$%s$", "the answer is %s", r"\boxed{7+%s}", "1+%s", "(1).%s"]
    assert set(marks(reward, [wrap % call for wrap in wraps])) <= {0.0, 1.0}
    assert not touched.exists()


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
    program = (
        "import ctypes, os, socket, subprocess\n"
        "from rlkit.rewards.math_worker import refuse_side_effects\n"
        "refuse_side_effects()\n"
        "import colorsys; open('kept').read()\n"
        f"try:\n    {code}\nexcept PermissionError as e:\n    print(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "the math worker may not use" in done.stdout, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept"]


def test_an_allocation_beyond_the_memory_limit_ends_the_item_and_the_next_one_is_judged() -> None:
    reward = Math(MathConfig(timeout=60.0, memory_mb=256, workers=1))
    try:
        assert marks(reward, [r"\boxed{2^{2^{31}}}", RIGHT]) == [0.0, 1.0]
        assert reward.counts() == {"timeouts": 1}
        items = [{"gold": "7", "text": r"\boxed{2^{2^{31}}}", "alarm": 99.0}]
        assert reward._pool.judge(items, 60.0) == [Verdict("limit", None, "MemoryError")]
    finally:
        reward.close()


def test_a_swallowed_memory_error_is_a_limit_unless_the_answer_is_right(tmp_path: Path) -> None:
    running = script(
        tmp_path,
        """
        from rlkit.rewards import math_worker

        def hoard(gold, text):
            kept = []
            try:
                while text == "large":
                    kept.append(bytearray(1 << 20))
            except MemoryError:
                pass
            return gold == "right"

        math_worker.matches = hoard
        suspect = math_worker.limit_memory(1024)
        for gold, text in [("wrong", "small"), ("right", "small"), ("wrong", "large")]:
            print(math_worker.judge(gold, text, suspect))
        print(math_worker.judge("right", "small", suspect))
        print(math_worker.judge("wrong", "small", None))
        """,
    )
    out, err = running.communicate(timeout=60)
    assert [ast.literal_eval(line) for line in out.splitlines()] == [
        {"score": 0.0, "retire": False},
        {"score": 1.0, "retire": False},
        {"limit": "MemoryError", "retire": True},
        {"score": 1.0, "retire": True},
        {"score": 0.0, "retire": False},
    ], err


def test_a_worker_killed_at_work_is_replaced_and_lost_after_the_second_time() -> None:
    reward = Math(MathConfig(timeout=60.0, workers=1))
    results: list[float | None] = []
    thread = threading.Thread(target=lambda: results.extend(marks(reward, [RIGHT, BOMB, RIGHT])))
    thread.start()
    try:
        killed: list[int] = []
        end = time.monotonic() + 40
        while len(killed) < 2:
            assert time.monotonic() < end
            # The bomb is item 1, tried again after item 2.
            for worker in [w for w in reward._pool.workers if w.item == 1]:
                if worker.pid not in killed:
                    killed.append(worker.pid)
                    time.sleep(0.3)
                    os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.02)
        thread.join(20)
        assert results == [1.0, None, 1.0]
        assert reward.counts() == {"lost": 1}
    finally:
        reward.close()


def script(tmp_path: Path, body: str) -> subprocess.Popen[str]:
    """Start a script that has no main guard, in a folder of its own."""
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, str(file)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_script_without_a_main_guard_works_and_leaves_no_process(tmp_path: Path) -> None:
    running = script(
        tmp_path,
        r"""
        import json
        from rlkit.rewards.math import Math
        reward = Math()
        marks = reward(["p", "p"], [r"\boxed{7}", r"\boxed{8}"], answer=["7", "7"])
        print(json.dumps([marks, [w.pid for w in reward._pool.workers]]))
        """,
    )
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, "")
    marks, pids = json.loads(out)
    assert marks == [1.0, 0.0]
    assert len(pids) >= 1
    assert not any(is_alive(pid) for pid in pids)


def test_workers_end_when_the_parent_is_killed_even_in_the_middle_of_an_item(
    tmp_path: Path,
) -> None:
    running = script(
        tmp_path,
        r"""
        import threading, time
        from rlkit.rewards.math import Math, MathConfig
        reward = Math(MathConfig(timeout=1.0, workers=2))
        reward(["p", "p"], [r"\boxed{7}"] * 2, answer=["7"] * 2)
        texts = [f"9**9**9**9", "\\boxed{7}"]
        threading.Thread(target=lambda: reward(["p", "p"], texts, answer=["7"] * 2)).start()
        while not any(w.item == 0 for w in reward._pool.workers):
            time.sleep(0.01)
        print(*[w.pid for w in reward._pool.workers], flush=True)
        time.sleep(60)
        """,
    )
    assert running.stdout is not None
    pids = [int(pid) for pid in running.stdout.readline().split()]
    running.kill()
    running.communicate()
    assert len(pids) == 2
    end = time.monotonic() + 15
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.05)


def test_it_works_in_a_thread(reward: Math) -> None:
    results: list[float | None] = []
    thread = threading.Thread(target=lambda: results.extend(marks(reward, [RIGHT, r"\boxed{8}"])))
    thread.start()
    thread.join(60)
    assert results == [1.0, 0.0]
