"""The process that scores reasoning-gym answers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from rlkit.tasks.gym_worker import judge, pack, unpack


def entry(question: str, answer: str, **metadata: Any) -> dict[str, Any]:
    return {
        "prompt": question,
        "entry": {"question": question, "answer": answer, "metadata": metadata},
    }


def test_packing_keeps_tuples_and_keys():
    value = {"a": (1, [2.5, ("x",)]), 3: {None: True}, (1, 2): float("inf"), "tuple": {"dict": []}}
    assert unpack(json.loads(json.dumps(pack(value)))) == value


class Scorer:
    """A data set whose scorer wants a whole number."""

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        if answer == "memory":
            raise MemoryError
        return 0.0 if answer is None else float(int(answer) == entry["answer"])


def test_a_text_that_cannot_be_parsed_gets_0_and_a_broken_entry_is_an_error():
    assert judge(Scorer(), {"answer": 3}, "3") == {"score": 1.0}
    assert judge(Scorer(), {"answer": 3}, "three") == {"score": 0.0}
    assert judge(Scorer(), {"answer": 3}, "memory") == {"limit": "MemoryError"}

    class Broken:
        def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
            raise KeyError("x")

    assert judge(Broken(), {}, "3") == {"error": "KeyError: 'x'"}


@pytest.mark.slow
def test_the_worker_answers_each_line_and_is_quiet_within_its_limits():
    command = [sys.executable, "-m", "rlkit.tasks.gym_worker", "string_insertion", "{}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as worker:
        assert worker.stdin and worker.stdout and worker.stderr

        replies = worker.stdout

        def ask(text: str, alarm: float) -> Any:
            item = {"entry": pack(entry("Q", "AB")["entry"]), "text": text, "alarm": alarm}
            print(json.dumps(item), file=worker.stdin, flush=True)
            return json.loads(replies.readline())

        assert json.loads(replies.readline()) == {"ready": True}
        assert ask("AB", 0.7) == {"score": 1.0, "retire": False}
        time.sleep(0.8)
        assert ask("print('x') or ['A', 'B']", 60)["score"] == pytest.approx(0.1)
        assert ask("len(bytes(1 << 30)) and ['A', 'B']", 60)["score"] == pytest.approx(0.1)
        assert ask("len(bytes(5 << 30)) and ['A', 'B']", 60)["score"] == 0.0
        worker.stdin.close()
        assert worker.wait(60) == 0
        assert worker.stderr.read() == ""
