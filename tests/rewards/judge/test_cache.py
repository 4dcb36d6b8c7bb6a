"""Answers on disk: several processes, kills, damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.rewards.judge.cache import FILE, AnswerCache, key_of, opened
from tests.cli import ROOT

BODY = {"messages": [{"role": "user", "content": "x"}], "temperature": 0.0}


def test_everything_that_decides_an_answer_is_in_the_key() -> None:
    keys = [
        key_of("a", None, BODY),
        key_of("b", None, BODY),
        key_of("a", "root", BODY),
        key_of("a", None, BODY | {"temperature": 1.0}),
        key_of("a", None, BODY | {"seed": 1}),
        key_of("a", None, BODY | {"messages": [{"role": "user", "content": "y"}]}),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of("a", None, dict(reversed(BODY.items()))) == keys[0]


def test_answers_stay_and_the_first_one_counts(tmp_path: Path) -> None:
    with opened(tmp_path / "new" / "folder") as cache:
        assert cache.known(["a", "b"]) == {}
        assert cache.keep({"a": "1", "b": ""}) == {"a": "1", "b": ""}
    with opened(tmp_path / "new" / "folder") as cache:
        assert cache.known(["b", "c", "a"]) == {"a": "1", "b": ""}
        assert cache.keep({"a": "2", "c": "3"}) == {"a": "1", "c": "3"}


def test_more_keys_than_a_query_holds(tmp_path: Path) -> None:
    answers = {str(i): f"answer {i}" for i in range(1001)}
    with opened(tmp_path) as cache:
        assert cache.keep(answers) == answers
        assert cache.known([*answers, "other"]) == answers


def test_without_a_folder_nothing_is_kept() -> None:
    with opened(None) as cache:
        assert cache.keep({"a": "1"}) == {"a": "1"}
        assert cache.known(["a"]) == {}


@pytest.mark.parametrize("damage", ["text", "folder", "file"])
def test_a_file_that_cannot_be_used_is_one_line(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    if damage == "text":
        folder.mkdir()
        (folder / FILE).write_text("no database at all, however long it is. " * 100)
    elif damage == "folder":
        (folder / FILE).mkdir(parents=True)
    else:
        folder.write_text("")
    with (
        pytest.raises(UserError, match=r"the judge's cache .*judge.sqlite cannot .*cache_dir"),
        opened(folder),
    ):
        raise AssertionError


WRITER = """
import sys
from pathlib import Path
from rlkit.rewards.judge.cache import AnswerCache
cache, name = AnswerCache(Path(sys.argv[1])), sys.argv[2]
for i in range(int(sys.argv[3])):
    kept = cache.keep({f"shared {i}": name, f"{name} {i}": "x" * 3000})
    print(kept[f"shared {i}"], flush=True)
"""


def start(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_write_and_one_is_killed(tmp_path: Path) -> None:
    """The one that is left goes on; both were told the same answers, and what was told is there."""
    with start(tmp_path, "first", 10**6) as first, start(tmp_path, "second", 40) as second:
        assert first.stdout is not None and second.stdout is not None
        try:
            told = [[first.stdout.readline().strip() for _ in range(20)]]
        finally:
            first.send_signal(signal.SIGKILL)
        told[0] += first.stdout.read().split()
        told.append(second.stdout.read().split())
    assert second.returncode == 0 and len(told[1]) == 40
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    cache = AnswerCache(tmp_path)
    for answers in told:
        held = cache.known([f"shared {i}" for i in range(len(answers))])
        assert [held[f"shared {i}"] for i in range(len(answers))] == answers
    cache.close()
