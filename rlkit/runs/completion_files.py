"""The files of completions/ as other programs read them, also while a run still writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rlkit.runs.token_file import token_file

_STEP = re.compile(r"step-(\d{1,9})\.jsonl", re.ASCII)


def completion_file(run_dir: Path, step: int) -> Path:
    """Where the responses of a step are."""
    return run_dir / "completions" / f"step-{step}.jsonl"


def completion_steps(run_dir: Path) -> list[int]:
    """The steps that left responses, in order. Links are passed over."""
    folder = run_dir / "completions"
    if not folder.is_dir() or folder.is_symlink():
        return []
    found = [(m, path) for path in folder.iterdir() if (m := _STEP.fullmatch(path.name))]
    return sorted(int(m[1]) for m, path in found if path.is_file() and not path.is_symlink())


def has_completions(run_dir: Path, step: int) -> bool:
    """Whether a step left responses."""
    return _is_own(completion_file(run_dir, step))


def has_tokens(run_dir: Path, step: int) -> bool:
    """Whether a step left what the trainer used of each token."""
    return _is_own(token_file(run_dir, step))


def _is_own(path: Path) -> bool:
    """Whether there is a file that is no link, in a folder that is none."""
    return path.is_file() and not path.is_symlink() and not path.parent.is_symlink()


def read_completions(path: Path) -> list[dict[str, Any]]:
    """The rows of a step, one per response; a line that is still being written is left out."""
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows
