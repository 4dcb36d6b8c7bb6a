"""Text files that are whole or not there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from rlkit.errors import UserError


def unfinished(path: Path) -> Path:
    """The name under which a file is written; one that a kill left is never read."""
    return path.with_name(f".{path.name}.tmp")


def write_whole(path: Path, text: str, *, flushed: bool = True) -> Path:
    """Write a file under another name and rename it; `flushed` = it is on the disk by then.

    A link, and what is no file, such as a pipe, is written to as it is. Raises UserError if the
    system refuses (a full disk); an older file is unchanged then.
    """
    temporary = unfinished(path)
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_text(text, encoding="utf-8")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(text.encode())
            if flushed:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
