"""Files of a training step, by their names: what a run writes for each and a resume removes.

Such as step-3.jsonl, tokens-step-3.parquet, step-00000003.parquet, and .step-3.parquet.tmp, which
is half written.
"""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(
    r"\.?(tokens-)?step-(?P<step>\d+)\.(jsonl|parquet)(?P<unfinished>\.tmp)?", re.ASCII
)


def step_of(path: Path) -> int | None:
    """The training step of a file; None if its name says none."""
    found = _NAME.fullmatch(path.name)
    return int(found["step"]) if found else None


def forget_after(folder: Path, step: int) -> None:
    """Remove the files of later steps, which a resumed run writes again, and those half written.

    Those in folders inside it too; files of other names stay.
    """
    for path in folder.rglob("*"):
        found = _NAME.fullmatch(path.name)
        if found is not None and (found["unfinished"] or int(found["step"]) > step):
            path.unlink()
