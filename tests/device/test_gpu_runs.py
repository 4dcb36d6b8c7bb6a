"""Whole runs on a GPU, through the real command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli import ROOT, SMALL, metrics, without_times

pytestmark = pytest.mark.gpu

REMIX = ("algorithm=remix", "buffer=fifo", "anchor=kl_convex", "schedule.at=3", "anchor.start=1")
STAGE = "{{steps: 1, overrides: [algorithm={}]}}"
FOUR = ("train.steps=4", "checkpoint.every=2", "model.deterministic=true")


def command(*words: str, cwd: Path) -> str:
    """A command in a process of its own, which must succeed: CUDA does not survive a fork."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    result = subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def train(*arguments: str, out: str, cwd: Path) -> Path:
    command("rlkit.run", *SMALL, "model.device=cuda", *arguments, f"output_dir={out}", cwd=cwd)
    return cwd / out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that the newest checkpoint holds: the model or its adapters, and a critic."""
    newest = max(folder.glob("checkpoint-*"), key=lambda p: int(p.name.partition("-")[2]))
    return {
        f"{file.relative_to(newest)}: {key}": tensor
        for file in sorted(newest.rglob("*.safetensors"))
        for key, tensor in load_file(file).items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "settings",
    [(), ("model.dtype=bfloat16",), ("algorithm=remix_ppo", "model.lora.r=4")],
    ids=["float32", "bfloat16", "critic and adapters"],
)
def test_a_deterministic_run_repeats_and_resumes_bit_for_bit(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    first, second = (train(*REMIX, *FOUR, *settings, out=o, cwd=tmp_path) for o in ("a", "b"))
    assert same(weights(first), weights(second))
    shutil.rmtree(second / "checkpoint-4")
    train(*REMIX, *FOUR, *settings, "resume=auto", out="b", cwd=tmp_path)
    assert same(weights(first), weights(second))
    one, other = (without_times(metrics(folder)) for folder in (first, second))
    assert json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize(
    "settings",
    [
        ("rollout.mode=ahead", "algorithm=grpo", "loss=grpo_behavior"),
        ("algorithm=grpo", "model.autocast=bfloat16", "model.gradient_checkpointing=true"),
        ("algorithm=grpo", "model.tf32=true", "train.optimizer=muon"),
        ("algorithm=grpo", "train.optimizer=adafactor", "model.dtype=bfloat16"),
        ("algorithm=remix", "buffer.storage=disk", "anchor.device=cpu"),
        (f"stages=[{STAGE.format('sft')}, {STAGE.format('remix')}]",),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_run_trains(settings: tuple[str, ...], tmp_path: Path) -> None:
    folder = train(*settings, out="out", cwd=tmp_path)
    found = weights(folder)
    assert found and all(weight.isfinite().all() for weight in found.values())


def test_a_run_is_evaluated_and_looked_at_on_the_gpu(tmp_path: Path) -> None:
    train("algorithm=grpo", out="out", cwd=tmp_path)
    assert "pass@1" in command("rlkit", "eval", "out", "eval.problems=8", cwd=tmp_path)
    command("rlkit", "doctor", "embedded", "--seconds", "10", cwd=tmp_path)
