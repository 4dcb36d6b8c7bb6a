"""Answers of judges on disk: SQLite, which several processes may use and any of them may leave."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlkit.errors import UserError

FILE = "judge.sqlite"
BUSY_SECONDS = 60.0
"""How long another process may hold the file."""
AT_ONCE = 500
"""Keys of one query."""


def key_of(model: str, root: str | None, body: Mapping[str, Any]) -> str:
    """A hash of everything that decides an answer: the model and what it is asked, settings too."""
    asked = json.dumps([model, root, body], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()


@contextmanager
def usable(file: Path) -> Generator[None]:
    """Inside, what is wrong with the file becomes a UserError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UserError(
            f"the judge's cache {file} cannot be used ({error}): delete it, or choose another "
            "folder with reward.judge.cache_dir"
        ) from None


class AnswerCache:
    """Answers by key. The first answer to a key stays.

    Each method is one transaction: a process that is killed leaves all of it or nothing. Raises
    UserError for a file that cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        with usable(self._file):
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._file, timeout=BUSY_SECONDS)
        with usable(self._file), self._db:
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) "
                "WITHOUT ROWID"
            )

    def known(self, keys: Sequence[str]) -> dict[str, str]:
        """The answers to those keys that have one."""
        found: dict[str, str] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            places = ",".join("?" * len(some))
            query = f"SELECT key, answer FROM answers WHERE key IN ({places})"
            with usable(self._file):
                found |= dict(self._db.execute(query, some))
        return found

    def keep(self, answers: Mapping[str, str]) -> dict[str, str]:
        """Store new answers; returns what is stored, which another process may have put there."""
        with usable(self._file), self._db:
            self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", answers.items())
        return self.known(list(answers))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class NoCache(AnswerCache):
    """Keeps nothing."""

    def __init__(self) -> None:
        pass

    def known(self, keys: Sequence[str]) -> dict[str, str]:
        """None is known."""
        return {}

    def keep(self, answers: Mapping[str, str]) -> dict[str, str]:
        """The same answers."""
        return dict(answers)

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def opened(folder: Path | None) -> Generator[AnswerCache]:
    """The cache of a folder, or none."""
    cache = NoCache() if folder is None else AnswerCache(folder)
    try:
        yield cache
    finally:
        cache.close()
