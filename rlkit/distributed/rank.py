"""The place of this process among those of a launch."""

from __future__ import annotations

import os


def launched() -> tuple[int, int]:
    """Rank and number of the processes a launcher started, (0, 1) without one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
