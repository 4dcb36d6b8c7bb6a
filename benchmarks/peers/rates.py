"""What a machine can do: `python -m peers.rates SIZE DEVICE DTYPE` prints its rates as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch

REPEATS = 7


def best(run: Callable[[], object]) -> float:
    """The least seconds of several calls."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main(size: int, device: str, dtype: str) -> None:
    """Print FLOP/s of a product of two square matrices, bytes/s of a sum and of a copy."""
    made = {"device": device, "dtype": getattr(torch, dtype)}
    a, b = torch.randn(2, size, size, **made)
    long = torch.randn(16 * size * size, **made)
    other = torch.empty_like(long)
    moved = long.numel() * long.element_size()
    found = {
        "flops": 2 * size**3 / best(lambda: torch.mm(a, b)),
        "read": moved / best(long.sum),
        "copy": 2 * moved / best(lambda: other.copy_(long)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
