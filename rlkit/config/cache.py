"""Where rlkit keeps on disk what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """$RLKIT_CACHE, else $XDG_CACHE_HOME/rlkit, else ~/.cache/rlkit."""
    if own := os.environ.get("RLKIT_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "rlkit"
