"""Worker processes: retries, limits, deaths, with a worker whose behavior is scripted."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.rewards.math.reward import Math, MathConfig
from rlkit.rewards.pool import Verdict, WorkerPool
from rlkit.rewards.process import worker_environment
from tests.rewards.processes import is_alive, wait_until

SCRIPTED = """
import json, os, sys, time
from pathlib import Path

print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    item = json.loads(line)
    verb, _, rest = item["text"].partition(" ")
    if verb.startswith("once-"):
        marker = Path(sys.argv[1]) / rest
        verb = "score" if marker.exists() else verb.removeprefix("once-")
        marker.touch()
    if verb == "die":
        os._exit(3)
    if verb == "hang":
        time.sleep(60)
    reply = {"retire": verb == "retire"}
    if verb in ("error", "limit"):
        reply[verb] = rest
    else:
        reply["score"] = os.getpid() if verb == "pid" else 1.0
    text = json.dumps(reply) + "\\n"
    sys.stdout.write(text[:5])
    sys.stdout.flush()
    time.sleep(0.01 if verb == "halves" else 0)
    sys.stdout.write(text[5:])
    sys.stdout.flush()
"""

SCORE = Verdict("score", 1.0, "1.0")


@pytest.fixture
def pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WorkerPool]]:
    (tmp_path / "scripted_worker.py").write_text(SCRIPTED)
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(size: int = 1, module: str = "scripted_worker") -> WorkerPool:
        made.append(WorkerPool(module, [str(tmp_path)], size))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def test_a_limit_is_0_and_what_was_not_judged_has_no_mark() -> None:
    assert [Verdict(kind).mark for kind in ("limit", "error", "lost")] == [0.0, None, None]
    assert [Verdict(k).event for k in ("limit", "error", "lost")] == ["timeouts", "errors", "lost"]
    assert (SCORE.mark, SCORE.event) == (1.0, None)


def judge(pool: WorkerPool, *texts: str, seconds: float = 20.0) -> list[Verdict]:
    return pool.judge([{"text": text} for text in texts], seconds)


def pids(pool: WorkerPool) -> list[int]:
    return [worker.pid for worker in pool.workers]


def test_verdicts_come_in_the_order_of_the_items_from_workers_that_are_kept(pools) -> None:
    pool = pools(size=2)
    first = judge(pool, "halves", "limit long", "score", "pid", "pid")
    assert first[:3] == [SCORE, Verdict("limit", None, "long"), SCORE]
    before = pids(pool)
    answered = {v.score for v in (*first[3:], *judge(pool, *["pid"] * 6))}
    assert answered <= set(before)
    assert pids(pool) == before
    assert judge(pool) == []


def test_no_more_workers_start_than_there_are_items(pools) -> None:
    pool = pools(size=5)
    assert pool.workers == []
    judge(pool, "score", "score")
    assert len(pool.workers) == 2


def test_a_worker_that_dies_is_replaced_and_its_item_tried_once_more(pools) -> None:
    pool = pools()
    assert judge(pool, "score", "once-die a", "score") == [SCORE] * 3
    assert judge(pool, "score", "die", "score") == [SCORE, Verdict("lost"), SCORE]


def test_a_worker_killed_between_calls_costs_nothing(pools) -> None:
    pool = pools()
    judge(pool, "score")
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    assert judge(pool, "score", "score") == [SCORE, SCORE]


def test_an_exception_is_tried_once_more_and_then_reported(pools) -> None:
    pool = pools()
    assert judge(pool, "once-error a", "score") == [SCORE, SCORE]
    assert judge(pool, "error TypeError: x") == [Verdict("error", None, "TypeError: x")]


def test_an_item_out_of_time_is_killed_without_a_retry_and_the_others_go_on(pools) -> None:
    pool = pools()
    judge(pool, "score")
    start = time.monotonic()
    verdicts = judge(pool, "score", "once-hang a", "score", seconds=0.4)
    assert verdicts == [SCORE, Verdict("limit", None, "time"), SCORE]
    assert time.monotonic() - start < 15


def test_one_slow_item_does_not_hold_up_the_other_worker(pools) -> None:
    pool = pools(size=2)
    judge(pool, "score", "score")
    verdicts = judge(pool, "hang", *["score"] * 50, seconds=1.0)
    assert verdicts == [Verdict("limit", None, "time")] + [SCORE] * 50


def test_a_worker_that_retires_keeps_its_verdict_and_is_replaced(pools) -> None:
    pool = pools()
    judge(pool, "score")
    before = pids(pool)
    judge(pool, "limit RecursionError")
    assert pids(pool) == before
    assert judge(pool, "retire", "score") == [SCORE, SCORE]
    assert len(pids(pool)) == 1
    assert pids(pool) != before


def test_a_module_that_cannot_start_is_said_in_one_line(pools) -> None:
    pool = pools(module="no_such_worker")
    with pytest.raises(UserError, match=r"did not start in 3 tries.*No module named") as error:
        judge(pool, "score")
    assert "\n" not in str(error.value)
    assert pool.workers == []


def test_an_interrupted_call_ends_its_workers_so_the_next_call_reads_its_own_replies(
    pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pools()
    judge(pool, "score")
    (pid,) = pids(pool)

    def interrupt(batch: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pool, "_listen", interrupt)
        judge(pool, "limit stale")
    assert not is_alive(pid)
    assert judge(pool, "score") == [SCORE]


def test_close_ends_the_processes_and_a_later_call_starts_new_ones(pools) -> None:
    pool = pools(size=2)
    judge(pool, "score", "score")
    before = pids(pool)
    pool.close()
    assert not any(is_alive(pid) for pid in before)
    assert judge(pool, "score") == [SCORE]


def test_a_pool_that_is_no_longer_used_ends_its_processes(pools) -> None:
    pool = WorkerPool("scripted_worker", ["."], 1)
    judge(pool, "score")
    (pid,) = pids(pool)
    del pool
    wait_until(lambda: not is_alive(pid))


def test_calls_from_several_threads_follow_one_another(pools) -> None:
    pool = pools(size=2)
    results: dict[int, list[Verdict]] = {}

    def call(number: int) -> None:
        results[number] = judge(pool, *[f"limit {number}"] * 20)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [Verdict("limit", None, str(n))] * 20 for n in range(4)}


def test_an_item_larger_than_a_pipe_arrives_whole(pools) -> None:
    assert judge(pools(), "limit " + "x" * 300_000) == [Verdict("limit", None, "x" * 300_000)]


def test_a_worker_gets_no_credentials_and_finds_the_same_modules(monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(sys, "path", ["", "/somewhere"])
    environment = worker_environment()
    assert "secret" not in environment.values()
    assert environment["PYTHONPATH"].split(os.pathsep) == [os.getcwd(), "/somewhere"]


def test_the_math_reward_counts_what_happened(pools, caplog) -> None:
    reward = Math(MathConfig(timeout=1.0))
    reward._pool = pools()
    texts = ["score", "die", "error TypeError: no order", "hang", "limit MemoryError", "score"]
    marks = reward([""] * 6, texts, answer=["1"] * 5 + [None], completion_ids=[[]] * 6)
    assert marks == [1.0, None, None, 0.0, 0.0, None]
    assert "left out 1 of 5" in caplog.text
    assert "TypeError: no order" in caplog.text
    assert reward.counts() == {"lost": 1, "errors": 1, "timeouts": 2}
    assert reward.counts() == {}
