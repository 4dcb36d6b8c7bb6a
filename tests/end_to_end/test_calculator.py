"""`environment=calculator` as it comes: sums, base and settings of its own, by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlkit.runs.records import read_run
from tests.cli import command, run

TINY = (
    *("environment=calculator", "algorithm=remix", "train.steps=3", "train.prompts_per_step=4"),
    *("train.minibatches=2", "rollout.num_generations=4", "eval.problems=16", "eval.every=null"),
    "checkpoint.every=1",
)
SHIPPED = {"RLKIT_BASE_SHIFT": "0"}


@pytest.mark.slow
def test_a_run_calls_the_tool_and_a_resumed_one_ends_with_the_same_bits(tmp_path: Path) -> None:
    done = run(*TINY, "output_dir=whole", cwd=tmp_path, env=SHIPPED)
    assert done.status == 0, done.err
    steps = [row for row in read_run(tmp_path / "whole").records if "tools/calls" in row]
    assert len(steps) == 3 and sum(row["tools/calls"] for row in steps) > 0
    assert all(row["tools/unparsable"] == 0 for row in steps)
    rows = (tmp_path / "whole/completions/step-1.jsonl").read_text().splitlines()
    assert any("turns" in json.loads(row) for row in rows), "no response called the tool"
    early = run(*TINY, "output_dir=cut", "resume=whole/checkpoint-2", cwd=tmp_path, env=SHIPPED)
    assert early.status == 0, early.err
    ends = [tmp_path / name / "checkpoint-3/model.safetensors" for name in ("whole", "cut")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_another_task_of_the_embedded_model_is_one_line(tmp_path: Path) -> None:
    wrong = (*TINY, "task.operands=5", "task.digits=1")
    done = run(*wrong, "output_dir=out", cwd=tmp_path, env=SHIPPED)
    assert done.status == 2
    (line,) = done.err.strip().splitlines()
    assert "the embedded model calls no tool but environment=calculator" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_it_learns_to_call_and_a_checkpoint_has_its_own_format(tmp_path: Path) -> None:
    done = run(
        *("environment=calculator", "algorithm=grpo", "eval.every=null", "eval.problems=256"),
        *("output_dir=out", "train.steps=30", "train.learning_rate=2e-4"),
        cwd=tmp_path,
        env=SHIPPED,
    )
    assert done.status == 0, done.err
    rows = read_run(tmp_path / "out").records
    before, after = (row["eval/pass@1"] for row in rows if "eval/pass@1" in row)
    assert before < 0.4 and after > 0.7
    calls = [row["tools/calls"] for row in rows if "tools/calls" in row]
    assert calls[0] < 0.7 and calls[-1] > 0.85
    again = command(
        *("rlkit.__main__", "eval", "out/checkpoint-30", "--out", "scores"),
        cwd=tmp_path,
        env=SHIPPED,
    )
    assert again.status == 0, again.err
    scores = json.loads((tmp_path / "scores/results.json").read_text())
    assert scores["metrics"]["eval/pass@1"] > 0.7, "it was evaluated without its tool"
