"""The reward `math` under hostile text, killed workers, threads, and scripts."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlkit.rewards.math.reward import Math, MathConfig
from rlkit.rewards.pool import Verdict
from tests.rewards.processes import is_alive, script, wait_until

SUM = "(a+b+c+d+g)"
BOMB = rf"\boxed{{{SUM}^{{70}} - {SUM}^{{69}}(a+b+c+d) - g{SUM}^{{69}} + 7}}"
"""Equals 7, but the proof has a million terms."""
RIGHT = r"\boxed{7}"


@pytest.fixture(scope="module")
def reward() -> Iterator[Math]:
    made = Math(MathConfig(timeout=2.0, max_chars=200_000, workers=2))
    yield made
    made.close()


def marks(reward: Math, texts: list[str]) -> list[float | None]:
    n = len(texts)
    return reward([""] * n, texts, answer=["7"] * n, completion_ids=[[]] * n)


def test_hostile_text_gets_zero_and_the_others_their_mark(reward: Math) -> None:
    start = time.monotonic()
    tower = r"\boxed{9**9**9**9}"
    long_sum = r"\boxed{" + "1+" * 50_000 + "1}"
    braces = r"\boxed" + "{" * 5000 + "7" + "}" * 5000
    brackets = "the answer is " + "(" * 5000 + "7" + ")" * 5000
    radicals = r"\boxed{" + r"\sqrt{2+" * 300 + "2" + "}" * 300 + "}"
    factorial = r"\boxed{(10^9)! + \binom{10^9}{10^8}}"
    hostile = [tower, long_sum, braces, brackets, radicals, factorial, r"\(" * 50_000]
    texts = [text for bad in (*hostile, BOMB) for text in (bad, RIGHT)]
    found = marks(reward, texts)
    assert found[1::2] == [1.0] * (len(hostile) + 1)
    assert found[::2] == [0.0] * (len(hostile) + 1)
    assert reward.counts() == {"timeouts": 1}
    assert time.monotonic() - start < 20


def test_code_in_a_completion_is_not_run(
    reward: Math, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = tmp_path / "touched"
    call = f"__import__('os').system('touch {touched}')"
    wraps = ["%s", r"\boxed{%s}", "$%s$", "the answer is %s", r"\boxed{7+%s}", "1+%s", "(1).%s"]
    assert set(marks(reward, [wrap % call for wrap in wraps])) == {0.0}
    assert not touched.exists()


def test_an_allocation_beyond_the_memory_limit_ends_the_item_and_the_next_one_is_judged() -> None:
    reward = Math(MathConfig(memory_mb=256, workers=1))
    texts = [BOMB, RIGHT]
    items = [{"gold": "7", "text": text, "tolerance": 0, "alarm": 99.0} for text in texts]
    try:
        memory, score = reward._pool.judge(items, 60.0)
        assert memory == Verdict("limit", None, "MemoryError")
        assert score.score == 1.0
    finally:
        reward.close()


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


def test_a_script_without_a_main_guard_works_and_leaves_no_process(tmp_path: Path) -> None:
    running = script(
        tmp_path,
        r"""
        import json
        from rlkit.rewards.math.reward import Math
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
        from rlkit.rewards.math.reward import Math, MathConfig
        reward = Math(MathConfig(timeout=1.0, workers=2))
        reward(["p", "p"], [r"\boxed{7}"] * 2, answer=["7"] * 2)
        total = "(a+b+c+d+g)"
        bomb = f"{total}^{{70}} - {total}^{{69}}(a+b+c+d) - g{total}^{{69}} + 7"
        texts = [f"\\boxed{{{bomb}}}", "\\boxed{7}"]
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
    wait_until(lambda: not any(is_alive(pid) for pid in pids), seconds=15)


def test_it_works_in_a_thread(reward: Math) -> None:
    results: list[float | None] = []
    thread = threading.Thread(target=lambda: results.extend(marks(reward, [RIGHT, r"\boxed{8}"])))
    thread.start()
    thread.join(60)
    assert results == [1.0, 0.0]


@pytest.mark.slow
def test_memory_of_the_workers_and_of_the_parent_stays_flat(reward: Math) -> None:
    def resident_kb(pid: int | str) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def judge_batch(first: int) -> dict[int | str, int]:
        golds = [str(n) for n in range(first, first + 2000)]
        # A text of its own each, so that no cache answers; an odd one is wrong.
        texts = [
            rf"\boxed{{\frac{{{2 * n + n % 2}\sqrt{{3}}}}{{2\sqrt{{3}}}}}}" for n in map(int, golds)
        ]
        found = reward([""] * 2000, texts, answer=golds, completion_ids=[[]] * 2000)
        assert found == [float(n % 2 == 0) for n in map(int, golds)]
        pids: list[int | str] = ["self", *(worker.pid for worker in reward._pool.workers)]
        return {pid: resident_kb(pid) for pid in pids}

    judge_batch(10_000)
    judge_batch(20_000)
    before = judge_batch(30_000)
    judge_batch(40_000)
    after = judge_batch(50_000)
    assert after.keys() == before.keys()
    assert all(after[pid] - before[pid] < 4096 for pid in before)
