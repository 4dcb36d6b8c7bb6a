"""How the weights of the two sides moved, from the folders that their runs left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from watch import environment

from peers.cases import Case
from peers.models import prepared


def moved(folder: Path, case: Case) -> tuple[float, float]:
    """Cosine between the two changes of the weights, and the ratio of their lengths.

    In a process of its own, so that this one stays small.
    """
    start = prepared(case.model, equal=case.equal)
    (end,) = (folder / "run").glob("checkpoint-*")
    places = [str(start), str(end), str(folder / "trl")]
    command = [sys.executable, "-m", "peers.weights", *places]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(1))
    cosine, ratio = json.loads(done.stdout)
    return cosine, ratio


def weights(folder: Path) -> dict[str, Any]:
    """The tensors of a `save_pretrained` folder."""
    from safetensors.torch import load_file

    return {n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()}


def main(start: Path, ours: Path, theirs: Path) -> None:
    """Print [cosine, length of the one change over that of the other]."""
    import torch

    before, a, b = weights(start), weights(ours), weights(theirs)
    names = sorted({*before} & {*a} & {*b})
    changes = [
        torch.cat([(found[n].double() - before[n].double()).flatten() for n in names])
        for found in (a, b)
    ]
    lengths = [float(change.norm()) for change in changes]
    cosine = float(changes[0] @ changes[1]) / (lengths[0] * lengths[1])
    print(json.dumps([cosine, lengths[0] / lengths[1]]))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
