"""Write the embedded models that come with rlkit, seed 0: rlkit/models/embedded_base and _calls_.

    python benchmarks/make_embedded_base.py

To be run, and the result committed, only when a recipe in `rlkit.models.embedded` or
`embedded_calls`, or what it drives, changes: another CPU rounds differently, and would make other
weights of the same recipe. A model whose recipe is the same as before is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from rlkit.models import embedded, embedded_calls
from rlkit.models.embedded import Recipe, write_model
from rlkit.models.embedded_calls import CallsRecipe, write_calls_model

SEED = 0


def ship(folder: Path, name: str, write: Callable[[], None]) -> None:
    """Write a model and what it is made from, unless it is made from that already."""
    about = folder / "origin.json"
    if about.exists() and json.loads(about.read_text())["made_from"] == name:
        print(f"{folder}: the recipe is the same, so the model stays")
        return
    shutil.rmtree(folder, ignore_errors=True)
    write()
    (folder / "model.safetensors").chmod(0o644)  # safetensors lets only its writer read it
    weights = (folder / "model.safetensors").read_bytes()
    origin = {"made_from": name, "model.safetensors": hashlib.sha256(weights).hexdigest()}
    about.write_text(json.dumps(origin, indent=2) + "\n")
    print(f"{folder}: {len(weights)} bytes, SHA-256 {origin['model.safetensors']}")


def main() -> None:
    """Write both."""
    sums, calls = Recipe(), CallsRecipe()
    ship(
        embedded.SHIPPED,
        sums.folder_name(SEED),
        lambda: write_model(embedded.SHIPPED, sums, SEED, progress=True),
    )
    ship(
        embedded_calls.SHIPPED,
        calls.folder_name(SEED),
        lambda: write_calls_model(embedded_calls.SHIPPED, calls, SEED, progress=True),
    )


if __name__ == "__main__":
    main()
