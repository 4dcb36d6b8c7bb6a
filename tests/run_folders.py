"""Run folders as a run leaves them, with metrics that the tests of pages and records choose."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from rlkit.runs.records import RunRecords, read_run

PART = {"import_path": "algorithms.remix:ReMix", "version": "rlkit-rft 0.1.0", "config": {}}


def evaluation(step: int, value: float, responses: int | None = None) -> dict[str, float]:
    """What an evaluation logs; by default 32 responses a step were generated before it."""
    return {
        "step": step,
        "eval/pass@1": value,
        "eval/pass@4": value,
        "eval/greedy": value + 0.05,
        "rollouts/total": 32 * step if responses is None else responses,
        "time/eval": 2.0,
    }


def training(step: int, **more: float) -> dict[str, float]:
    """What a training step logs: 1.5 seconds, of which the timers know 1.25."""
    ages = {
        f"policy/{name}_age_{age}": 0.1 * age
        for name in ("clip_fraction", "ratio_mean")
        for age in range(3)
    }
    times = {f"time/{name}": 0.25 for name in ("rollout", "reward", "forward", "update", "sync")}
    return {
        "step": step,
        "rollouts/total": 32 * step,
        "rollouts/tokens": 320 * step,
        "reward/mean": step / 10,
        "reward/std": 0.2,
        "reward/errors": 0.0,
        "reward/timeouts": 0.0,
        "reward/lost": 0.0,
        "completions/mean_length": 12.0,
        "completions/clipped_ratio": 0.01,
        "policy/clip_fraction": 0.05,
        "policy/entropy": 0.5,
        "policy/skipped_steps": 0,
        "off_policy/ess": 0.9,
        "off_policy/sequence_ess": 0.8,
        "policy/lr_ess_factor": 0.9,
        "anchor/kl": 0.01,
        "anchor/kl_base": 0.02,
        "buffer/age_mean": 0.5,
        "buffer/age_max": 2.0,
        "schedule/rebirths": float(step >= 3),
        "schedule/stage": 0,
        "time/step": 1.5,
        **ages,
        **times,
        **{key.replace("__", "/"): value for key, value in more.items()},
    }


def write_run(folder: Path, records: list[dict[str, Any]], **files: str) -> Path:
    """A run folder with these records; config_yaml=... is the text of config.yaml."""
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(lines)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def remix_run(folder: Path) -> Path:
    """A run of four steps with a rebirth in the third, evaluated before and after."""
    return write_run(
        folder,
        [evaluation(0, 0.1), *(training(step) for step in range(1, 5)), evaluation(4, 0.6)],
        config_yaml=yaml.safe_dump(
            {
                "loss": {"name": "remix"},
                "seed": 7,
                "train": {"steps": 4},
                "eval": {"problems": 100},
                "model": {"name": "embedded", "device": "auto"},
            }
        ),
        components_json=json.dumps({"loss": {"name": "remix", **PART}}),
        overrides="train.steps=4\nloss.<b>=1\n",
    )


def records_of(folder: Path, records: list[dict[str, Any]], **files: str) -> RunRecords:
    """Those records, as read back from a run folder."""
    return read_run(write_run(folder, records, **files))


def held(page: str) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data
