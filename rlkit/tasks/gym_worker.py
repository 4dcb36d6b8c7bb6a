"""Scores answers to a reasoning-gym data set in a process of its own.

It reads {"entry", "text", "alarm"} lines and writes one verdict per line. Several of the data sets'
own scorers hand the model's text to `eval` or to sympy's parser, which evaluates it. So the process
has a memory limit, gets few environment variables, refuses to write, start or connect to anything
(see `refuse_side_effects`), and may be killed at any moment.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from rlkit.rewards.math.worker import limit_memory, peak_bytes, refuse_side_effects

SPARE_MB = 2048
"""Memory for scoring, on top of what the imports take."""


def pack(value: Any) -> Any:
    """A value as JSON that keeps tuples and keys that are not text."""
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [pack(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(item)] for key, item in value.items()]}
    return value


def unpack(value: Any) -> Any:
    """What `pack` was given."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(unpack(item) for item in value["tuple"])
    return {unpack(key): unpack(item) for key, item in value["dict"]}


def judge(dataset: Any, entry: Mapping[str, Any], text: str | None) -> dict[str, Any]:
    """{"score"}, {"limit"}, or {"error"} if the scorer cannot even judge a missing answer.

    A scorer that fails on a text, and not on a missing answer, could not parse it: that is 0.
    """
    try:
        return {"score": float(dataset.score_answer(text, entry))}
    except (MemoryError, RecursionError) as error:
        return {"limit": type(error).__name__}
    except Exception as failure:
        try:
            dataset.score_answer(None, entry)
        except Exception:
            return {"error": f"{type(failure).__name__}: {failure}"[:300]}
        return {"score": 0.0}


def main(name: str, params: Mapping[str, Any]) -> None:
    """Judge until stdin ends. An item that outlasts its alarm ends the process."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    dataset = importlib.import_module("reasoning_gym").create_dataset(name, **params)
    # A first call lets the scorer import what it needs while files may still be opened freely.
    judge(dataset, dataset[0], "1")
    print(json.dumps({"ready": True}), file=replies)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    limit_memory((peak_bytes() >> 20) + SPARE_MB)
    refuse_side_effects()
    for line in sys.stdin:
        item = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, item["alarm"])
        verdict = judge(dataset, unpack(item["entry"]), item["text"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict | {"retire": "limit" in verdict}), file=replies)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
