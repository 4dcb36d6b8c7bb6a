"""What tells a model's weights from others under the same name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rlkit.runs.checkpoint import MANIFEST

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
DIGITS = 16


def weights_of(name: str) -> str | None:
    """A hash that changes with the weights in a folder or file; None for what is no path.

    Of a run's checkpoint, its manifest, which has a hash of each file; of another folder, the
    names, sizes and times of its weights.
    """
    path = Path(name).expanduser()
    if (path / MANIFEST).is_file():
        seen = (path / MANIFEST).read_text()
    elif path.exists():
        files = [path] if path.is_file() else sorted(f for w in WEIGHTS for f in path.glob(w))
        seen = "\n".join(f"{f.name} {(s := f.stat()).st_size} {s.st_mtime_ns}" for f in files)
    else:
        return None
    return hashlib.sha256(seen.encode()).hexdigest()[:DIGITS]
