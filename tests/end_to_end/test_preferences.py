"""Whole runs on preferences: offline without a reward, online with one, and OPA-DPO in stages."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli import SMALL, command, metrics, run, without_times

KILLER = Path(__file__).parents[1] / "killer.py"
SUMS = "pkg://rlkit/tasks/revised_sums.jsonl"
SIZES = [word for word in SMALL if not word.startswith("train.steps")]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"task.path={path}"


def evaluations(folder: Path) -> list[dict[str, float]]:
    return [row for row in metrics(folder) if "eval/pass@1" in row]


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that generates nothing and has no reward."""
    folder = tmp_path_factory.mktemp("offline")
    words = ("task=preference", f"task.path={SUMS}", "algorithm=online_dpo", "buffer=pairs")
    rates = ("train.steps=6", "train.learning_rate=1e-4", "eval.every=3")
    result = run(*SIZES[:-1], *words, *rates, "output_dir=out", cwd=folder)
    assert result.status == 0, result.err
    return folder / "out"


def test_held_out_preferences_are_ranked_and_nothing_is_generated(offline: Path) -> None:
    """Its accuracy is the score of the run: a half before training, and all after a few steps."""
    found = evaluations(offline)
    assert [row["step"] for row in found] == [0, 3, 6]
    assert [row["eval/pass@1"] for row in found] == [row["eval/pairs/accuracy"] for row in found]
    assert found[0]["eval/pairs/accuracy"] == 0.5 < found[-1]["eval/pairs/accuracy"]
    assert found[0]["eval/pairs/margin"] < 1e-4 < found[-1]["eval/pairs/margin"]
    assert not any("eval/greedy" in row or "eval/reward" in row for row in found)
    assert {row["rollouts/total"] for row in metrics(offline)} == {0}


def test_an_evaluation_of_a_run_without_a_reward_ranks_its_held_out_pairs(offline: Path) -> None:
    """The figures of the last step's own evaluation, with the reference of the checkpoint."""
    asked = ("eval", str(offline), "--out", "found")
    result = command("rlkit.__main__", *asked, cwd=offline.parent)
    assert result.status == 0, result.err
    found = json.loads((offline.parent / "found" / "results.json").read_text())
    expected = {key: value for key, value in evaluations(offline)[-1].items() if "eval/" in key}
    assert found["metrics"] == pytest.approx(expected, abs=1e-6)
    assert found["metrics"]["eval/pairs/margin"] > 0
    assert f"Ranking held-out preferences ({found['preferences']})" in result.err


def test_answers_without_a_reward_cannot_be_evaluated(offline: Path) -> None:
    """On another file the pairs are not those that the run held out."""
    other = (f"task.path={SUMS}", "task.eval_fraction=0.5", "eval.problems=4")
    result = command("rlkit.__main__", "eval", str(offline), *other, cwd=offline.parent)
    assert result.status == 2 and "reward=[" in result.err


def test_prompts_of_preferences_are_answered_where_a_reward_is_chosen(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"{a}+{b}+1+1+1=",
            "chosen": "01",
            "rejected": "02",
            "answer": f"{a + b + 3:02d}",
        }
        for a in range(1, 6)
        for b in range(1, 6)
    ]
    words = ("task=preference", written(tmp_path / "a.jsonl", rows), "algorithm=online_dpo")
    refused = run(*SMALL, *words, cwd=tmp_path)
    assert refused.status == 2 and "choose one with reward=" in refused.err
    reward = ("reward=[exact]", "reward.exact.extract=after", "reward.exact.marker='#'")
    result = run(*SMALL, *words, *reward, "output_dir=out", cwd=tmp_path)
    assert result.status == 0, result.err
    last = metrics(tmp_path / "out")[-1]
    assert last["rollouts/total"] > 0
    assert {"eval/pass@1", "eval/greedy", "eval/reward/exact/mean", "eval/pairs/accuracy"} <= {
        *last
    }


def test_the_embedded_model_reads_sums_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+1=", "chosen": "yes", "rejected": "1"} for n in range(9)]
    words = ("task=preference", written(tmp_path / "a.jsonl", rows), "algorithm=online_dpo")
    result = run(*SMALL, *words, "buffer=pairs", cwd=tmp_path)
    assert result.status == 2 and "the embedded model cannot read" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_preferences_that_are_too_long_are_left_out_of_the_evaluation(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{a}+{b}=", "chosen": "1" * (30 if b % 2 else 3), "rejected": "2"}
        for a in range(1, 9)
        for b in range(1, 9)
    ]
    words = ("task=preference", written(tmp_path / "a.jsonl", rows), "algorithm=online_dpo")
    dropping = ("buffer=pairs", "task.eval_fraction=0.4", "output_dir=out")
    refused = run(*SMALL, *words, *dropping, cwd=tmp_path)
    assert refused.status == 2 and "buffer.overlong=drop" in refused.err
    result = run(*SMALL, *words, *dropping, "buffer.overlong=drop", cwd=tmp_path)
    assert result.status == 0, result.err
    assert "held-out preferences are left out of the evaluation" in result.out


OPA = (
    "+experiment=opa_dpo",
    "stages=[{steps: 2, overrides: [algorithm=sft, train.learning_rate=1e-3]}, "
    "{steps: 3, overrides: [algorithm=online_dpo, train.learning_rate=3e-4]}]",
    "train.prompts_per_step=4",
    "rollout.max_completion_length=15",
    "eval.problems=8",
    "eval.every=3",
    "checkpoint.every=1",
    f"plugins=[{KILLER}]",
)


@pytest.mark.slow
def test_opa_dpo_has_the_policy_of_its_first_stage_as_the_reference_and_resumes(
    tmp_path: Path,
) -> None:
    """Killed in the second stage, with half a line written, it goes on as if it had not been."""
    whole = run(*OPA, "output_dir=whole", cwd=tmp_path)
    assert whole.status == 0, whole.err
    rows = metrics(tmp_path / "whole")
    steps = [row for row in rows if "policy/loss" in row]
    assert [row["schedule/stage"] for row in steps] == [0, 0, 1, 1, 1]
    assert "policy/margin" not in steps[1], "the first stage imitates"
    first, second = steps[2], steps[3]
    assert first["policy/margin"] == pytest.approx(0, abs=1e-4), "the reference is rebased"
    assert first["policy/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert abs(second["policy/margin"]) > 1e-3
    found = evaluations(tmp_path / "whole")
    assert "eval/pairs/accuracy" not in found[0] and "eval/pairs/accuracy" in found[-1]
    assert {row["rollouts/total"] for row in rows} == {0} and "eval/greedy" in found[-1]
    killed = run(*OPA, "output_dir=part", cwd=tmp_path, env={"KILL": "log:6"})
    assert killed.status == -signal.SIGKILL
    again = run(*OPA, "output_dir=part", "resume=auto", cwd=tmp_path)
    assert again.status == 0, again.err
    assert without_times(metrics(tmp_path / "part")) == without_times(rows)
