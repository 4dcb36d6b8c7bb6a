"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlkit.errors import UserError


def unfinished(path: Path) -> Path:
    """The name under which a file is written; one that a kill left is never read."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def whole(
    path: Path, advice: str = "", *, flushed: bool = True, temporary: Path | None = None
) -> Generator[Path]:
    """Where to write a file, which then gets its name; `flushed` = it is on the disk by then.

    Raises UserError with the advice if the system refuses (a full disk); an older file is unchanged
    then.
    """
    temporary = temporary or unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if flushed:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written: {reason}{advice}") from error


def write_whole(path: Path, text: str, *, flushed: bool = True) -> Path:
    """Write a text file as `whole` says, also through a link or to what is no file, such as a pipe.

    Those are written to as they are. Several processes may write one file at once, such as a run
    and `rlkit report` its page: the last one stays.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
        return path
    own = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with whole(path, flushed=flushed, temporary=own) as temporary:
        temporary.write_bytes(text.encode())
    return path
