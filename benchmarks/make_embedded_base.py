"""Write the embedded model that comes with rlkit: rlkit/models/embedded_base, seed 0.

    python benchmarks/make_embedded_base.py

To be run, and the result committed, only when `rlkit.models.embedded.Recipe` or what it drives
changes: another CPU rounds differently, and would make other weights of the same recipe.
"""

from __future__ import annotations

import hashlib
import json
import shutil

from rlkit.models.embedded import ORIGIN, SHIPPED, Recipe, write_model

SEED = 0


def main() -> None:
    shutil.rmtree(SHIPPED, ignore_errors=True)
    write_model(SHIPPED, Recipe(), SEED, progress=True)
    (SHIPPED / "model.safetensors").chmod(0o644)  # safetensors lets only its writer read it
    weights = (SHIPPED / "model.safetensors").read_bytes()
    origin = {
        "made_from": Recipe().folder_name(SEED),
        "model.safetensors": hashlib.sha256(weights).hexdigest(),
    }
    ORIGIN.write_text(json.dumps(origin, indent=2) + "\n")
    print(f"{SHIPPED}: {len(weights)} bytes, SHA-256 {origin['model.safetensors']}")


if __name__ == "__main__":
    main()
