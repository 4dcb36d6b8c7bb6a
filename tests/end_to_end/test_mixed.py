"""A run of a mix of tasks, and what is done with it afterwards."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from rlkit.evaluation.records import read_answers
from rlkit.stored.parquet import read_rows
from tests.cli import SMALL, command, metrics, ranks, run, without_times

PARTS = "task.parts={a: {kind: arithmetic, weight: 3}, b: {kind: arithmetic, reward: [exact]}}"
MIX = (*SMALL, "algorithm=grpo", "task=mixed", PARTS, "prompts.order=target", "eval.problems=8")


@cache
def trained() -> Path:
    folder = Path(mkdtemp(prefix="rlkit-mix-")) / "run"
    done = run(*MIX, "rollout.save=true", f"output_dir={folder}", cwd=folder.parent)
    assert done.status == 0, done.err
    assert "Shares of the prompts: a 75%, b 25%." in done.out
    assert "right by the reward 'a/arithmetic' for a and 'b/exact' for b." in done.out
    return folder


@pytest.mark.slow
def test_what_a_run_leaves_says_which_task_a_response_is_of() -> None:
    rows = metrics(trained())
    assert {"eval/pass@1", "eval/a/pass@1", "eval/b/pass@1", "eval/a/greedy"} <= rows[0].keys()
    answers = read_answers(trained() / "evaluations" / "step-0.parquet")
    for task in ("a", "b"):
        right = [
            row["right"]
            for row in answers
            if json.loads(row["columns"])["task"] == task and not row["greedy"]
        ]
        assert len(right) == 4 and rows[0][f"eval/{task}/pass@1"] == sum(right) / 4
    by_task: dict[str, list[float]] = {"a": [], "b": []}
    for row in read_rows(trained() / "rollouts" / "data" / "step-00000001.parquet"):
        by_task[row["task"]].append(row["reward"])
        names = {each["name"] for each in row["rewards"]}
        assert names == ({"a/arithmetic"} if row["task"] == "a" else {"b/exact"})
    for task, rewards in by_task.items():
        if rewards:
            found = rows[1][f"reward/{task}/mean"]
            assert found == pytest.approx(sum(rewards) / len(rewards))
    lines = (trained() / "completions" / "step-1.jsonl").read_text().splitlines()
    assert {*json.loads(lines[0])["rewards"]} <= {"a/arithmetic", "b/exact"}


def test_a_checkpoint_is_evaluated_as_its_run_was(tmp_path: Path) -> None:
    done = command(
        "rlkit.__main__", "eval", str(trained()), "--out", "here", "eval.samples=1", cwd=tmp_path
    )
    assert done.status == 0, done.err
    figures, last = json.loads(done.out), metrics(trained())[-1]
    for key in ("eval/greedy", "eval/a/greedy", "eval/b/greedy"):
        assert figures[key] == last[key]
    assert "eval/a/pass@1_low" in figures
    about = json.loads((tmp_path / "here" / "results.json").read_text())
    assert about["right_by"] == {"a": "a/arithmetic", "b": "b/exact"} and about["held_out"]


@pytest.mark.slow
def test_the_doctor_finds_nothing(tmp_path: Path) -> None:
    """Each reward is tried on the gold answers of its own task."""
    done = command("rlkit.__main__", "doctor", "embedded", *MIX, cwd=tmp_path)
    assert done.status == 0, done.out + done.err
    said = " ".join(done.out.split())
    for reward in ("a/arithmetic", "b/exact"):
        assert f"'{reward}' gives full marks to all 8 gold answers" in said, said


@pytest.mark.slow
def test_several_processes_choose_the_same_prompts(tmp_path: Path) -> None:
    done = ranks("rlkit.run", *MIX, "output_dir=two", cwd=tmp_path)
    assert done.status == 0, done.err
    kept = ("prompts/", "reward/")
    whole, found = (
        [{k: v for k, v in row.items() if k.startswith(kept)} for row in without_times(metrics(p))]
        for p in (trained(), tmp_path / "two")
    )
    assert [row.keys() for row in whole] == [row.keys() for row in found]
    assert whole[1] == found[1], "the first step's weights are the same to the bit"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("task.parts={x: {kind: arithmetic, weight: 0}}",), "every weight is 0"),
        (("task.parts={x: {kind: arithmetik}}",), "Did you mean 'arithmetic'"),
        (("task.parts={x: {kind: arithmetic, reward: [overlong]}}",), "no reward of x marks"),
        ((PARTS, "reward=[exact]", "eval.reward=math"), "evaluates with no such reward"),
        ((PARTS, "eval.on=['b=sums.jsonl']"), "eval.on and task.parts both name 'b'"),
        (("task.parts={}",), "task=mixed has no tasks yet"),
        ((PARTS, "prompts.order=hardest"), "prompts.order"),
        ((PARTS, "prompts.pass_rate_column=rate", "prompts.order=target"), "has that column"),
    ],
)
def test_mistakes_are_told_in_one_line(more: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text('{"prompt": "1+1+1+1+1=", "answer": "05"}\n' * 3)
    done = run(*SMALL, "task=mixed", *more, "output_dir=out", cwd=tmp_path)
    assert done.status == 2 and said in done.err, done.err
    assert len(done.err.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
