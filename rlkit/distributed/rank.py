"""The place of this process among those of a launch."""

from __future__ import annotations

import os


def launched() -> tuple[int, int]:
    """Rank and world size that a launcher set, (0, 1) without one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
