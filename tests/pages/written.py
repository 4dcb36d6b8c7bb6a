"""Run folders written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def write_run(
    folder: Path,
    scores: Mapping[int, float],
    *,
    seed: int = 0,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    steps: int | None = None,
) -> Path:
    """A run with eval/pass@1 at some steps, 10 responses and 2 seconds a step.

    It is meant to take `steps` steps, by default as many as it did, and evaluates 10 problems.
    """
    folder.mkdir(parents=True)
    last = max(scores)
    lines: list[dict[str, float]] = []
    for step in range(last + 1):
        if step:
            reward = {"reward/mean": step / (last + 1), "completions/mean_length": 12.0}
            lines.append({"step": step, "rollouts/total": 10 * step, "time/step": 2.0, **reward})
        if step in scores:
            lines.append({"step": step, "rollouts/total": 10 * step, "eval/pass@1": scores[step]})
    config = {
        "seed": seed,
        "output_dir": str(folder),
        "train": {"steps": steps or last},
        "eval": {"problems": 10, "samples": 1},
        **(settings or {}),
    }
    said = [*overrides, f"seed={seed}", f"output_dir={folder}"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "overrides").write_text("".join(f"{line}\n" for line in said))
    (folder / "components.json").write_text("{}")
    return folder


def write_pair(
    folder: Path, first: Sequence[float], second: Sequence[float], steps: int = 4
) -> list[Path]:
    """Two groups of runs, loss=grpo and loss=remix, of seeds 0, 1, ..., that begin at 0.1.

    Each ends at its given score, and is halfway there at half of its steps.
    """
    return [
        write_run(
            folder / f"{loss}-{seed}",
            {0: 0.1, steps // 2: (0.1 + end) / 2, steps: end},
            seed=seed,
            overrides=[f"loss={loss}"],
            settings={"loss": {"name": loss}},
        )
        for loss, ends in (("grpo", first), ("remix", second))
        for seed, end in enumerate(ends)
    ]
