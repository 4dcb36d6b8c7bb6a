"""The plan of a run: how many responses it will generate after each step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import SMALL, metrics, run

REMIX_PPO = (
    *("algorithm=remix", "advantage=reinforce_pp", "rollout.num_generations=1"),
    *("train.prompts_per_step=256", "train.minibatches=8", "buffer.replay_fraction=0.4"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "steps", "responses"),
    [(100, 200, 40_900), (100, 350, 79_300), (100, 500, 117_700), (50, 100, 20_450)],
)
def test_remix_generates_what_its_paper_reports(
    at: int, steps: int, responses: int, tmp_path: Path
) -> None:
    """153 = 256 - ceil(0.4 x 256) responses per step up to T, 256 after it: the published 40.9K and
    79.3K for T = 100 (arXiv:2507.06892), 0.117M after 500 steps, 0.020M after 100 for T = 50."""
    out = run(
        *REMIX_PPO, f"schedule.at={at}", f"train.steps={steps}", "dry_run=true", cwd=tmp_path
    ).out
    assert out.splitlines()[-1] == f"After step {steps} (on_policy): {responses} responses."


@pytest.mark.slow
def test_the_plan_is_what_a_run_counts(tmp_path: Path) -> None:
    args = ("algorithm=remix", "schedule.at=2", "train.steps=4", "eval.every=1")
    small = [a for a in SMALL if not a.startswith(("train.steps", "eval.every"))]
    planned = run(*small, *args, "dry_run=true", cwd=tmp_path).out
    assert run(*small, *args, "output_dir=out", cwd=tmp_path).status == 0
    counted = {
        r["step"]: r["rollouts/total"] for r in metrics(tmp_path / "out") if "policy/loss" in r
    }
    phases = ["mix", "mix", "on_policy", "on_policy"]
    lines = [
        f"After step {s} ({p}): {counted[s]} responses."
        for s, p in zip(range(1, 5), phases, strict=True)
    ]
    assert planned.splitlines()[-4:] == lines
