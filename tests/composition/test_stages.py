"""Runs in stages, by the real command line: what goes on, what begins anew, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import rlkit
from tests.cli import ROOT, SMALL, metrics, run, without_times

THREE = (
    "stages=[{steps: 2, overrides: ['algorithm=sft']}, "
    "{steps: 3, overrides: ['algorithm=remix', 'schedule.at=1', 'rollout.num_generations=4']}, "
    "{steps: 1, overrides: ['algorithm=grpo']}]"
)
STORED = "'algorithm=remix', 'schedule=never', 'buffer.storage=disk', 'rollout.num_generations=4'"
ON_DISK = f"stages=[{{steps: 3, overrides: [{STORED}]}}, {{steps: 3, overrides: [{STORED}]}}]"
SIZES = tuple(argument for argument in SMALL if not argument.startswith("train.steps"))


def train(out: str, *args: str, cwd: Path) -> Path:
    result = run(*SIZES, *args, f"output_dir={out}", cwd=cwd)
    assert result.status == 0, result.err
    return cwd / out


def test_stages_follow_each_other_with_parts_of_their_own(tmp_path: Path) -> None:
    folder = train("out", THREE, cwd=tmp_path)
    rows = metrics(folder)
    steps = [row for row in rows if "policy/loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6], "counted through"
    assert [row["schedule/stage"] for row in steps] == [0, 0, 1, 1, 1, 2]
    assert [row["step"] for row in rows if "eval/pass@1" in row] == [0, 2, 5, 6]
    generated = [0, 0, 2 * 4, 4 * 4, 4 * 4, 4 * 8]
    assert [row["rollouts/total"] for row in steps] == [sum(generated[: i + 1]) for i in range(6)]
    assert [row["schedule/rebirths"] for row in steps] == [0, 0, 0, 1, 1, 1], (
        "T counts in the stage"
    )
    assert (folder / "completions" / "step-6.jsonl").exists()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["train"]["steps"] == 6 and len(config["stages"]) == 3
    parts = json.loads((folder / "components.json").read_text())
    assert [parts[f"loss (stage {i})"]["name"] for i in (1, 2, 3)] == ["sft", "remix", "grpo"]
    assert "remix" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_stage_goes_on_with_the_policy_of_the_one_before(tmp_path: Path) -> None:
    """A stage that hardly learns leaves the weights where the stage before it took them."""
    still = "{steps: 1, overrides: ['algorithm=grpo', 'train.learning_rate=1e-30']}"
    folder = train("out", f"stages=[{{steps: 2}}, {still}]", cwd=tmp_path)
    one = load_file(folder / "checkpoint-2" / "model.safetensors")
    two = load_file(folder / "checkpoint-3" / "model.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
    alone = train("alone", "train.steps=2", cwd=tmp_path)
    same = load_file(alone / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(one[name], same[name]) for name in one), "the first is a run of its own"


@pytest.mark.slow
def test_stages_draw_differently(tmp_path: Path) -> None:
    folder = train("out", "algorithm=grpo", "stages=[{steps: 1}, {steps: 1}]", cwd=tmp_path)
    asked = [
        (folder / "completions" / name).read_text() for name in ("step-1.jsonl", "step-2.jsonl")
    ]
    prompts = [{json.loads(line)["prompt"] for line in text.splitlines()} for text in asked]
    assert prompts[0] != prompts[1]


@pytest.mark.slow
@pytest.mark.parametrize("stages", [THREE, ON_DISK], ids=["three", "on disk"])
@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_resumed_run_equals_the_uninterrupted_one(step: int, stages: str, tmp_path: Path) -> None:
    """After a stage, inside one, and after the next, which leaves the files of the one before."""
    whole = train("whole", stages, "checkpoint.every=1", "checkpoint.keep=10", cwd=tmp_path)
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    for checkpoint in again.glob("checkpoint-*"):
        if int(checkpoint.name.partition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    train("again", stages, "checkpoint.every=1", "checkpoint.keep=10", "resume=auto", cwd=tmp_path)
    assert without_times(metrics(again)) == without_times(metrics(whole))
    a, b = (load_file(folder / "checkpoint-6" / "model.safetensors") for folder in (whole, again))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    train("out", "stages=[{steps: 1}, {steps: 1}]", cwd=tmp_path)
    result = run(
        *SIZES, "stages=[{steps: 1}, {steps: 1}]", "resume=auto", "output_dir=out", cwd=tmp_path
    )
    assert result.status == 0 and "is finished: 2 steps" in result.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[{steps: 0}]", "stages.0.steps=0 is not valid"),
        ("[{overrides: []}]", "stages.0.steps"),
        ("[{steps: 1, override: []}]", "unknown key stages.0.override. Did you mean 'overrides'?"),
        ("[5]", "stages.0=5 is not a stage"),
        ("[{steps: 1}, {steps: 1, overrides: ['loss=remixx']}]", "remixx"),
        ("[{steps: 1, overrides: ['loss.epsilonn=1']}]", "epsilonn"),
        ("[{steps: 1}, {steps: 1, overrides: ['eval.problems=3']}]", "stage 2 changes eval"),
        ("[{steps: 1}, {steps: 1, overrides: ['model.dtype=bfloat16']}]", "stage 2 changes model"),
        ("[{steps: 1}, {steps: 1, overrides: ['output_dir=b']}]", "stage 2 changes output_dir"),
        ("[{steps: 1, overrides: ['=3']}]", "is not an override"),
    ],
)
def test_every_stage_is_checked_before_the_run(stages: str, message: str, tmp_path: Path) -> None:
    result = run(*SIZES, f"stages={stages}", "output_dir=out", cwd=tmp_path)
    assert result.status == 2
    assert message in result.err and len(result.err.splitlines()) == 1, result.err
    assert not (tmp_path / "out").exists()


def test_the_shipped_experiment_composes(tmp_path: Path) -> None:
    result = run("+experiment=sft_remix_grpo", "dry_run=true", cwd=tmp_path)
    assert result.status == 0, result.err
    assert "Stage 3 of 3" in result.out and not list(tmp_path.iterdir())
    assert (ROOT / "configs" / "experiment" / "sft_remix_grpo.yaml").exists()


WATCH = """
from rlkit.rollout.remote import RemoteEngine

def told(name):
    real = getattr(RemoteEngine, name)
    def call(self, *args):
        if name == "start" or self.process is not None:
            print("engine", name)
        return real(self, *args)
    setattr(RemoteEngine, name, call)

told("start")
told("close")
"""


@pytest.mark.slow
def test_a_stage_has_the_memory_of_the_engine_before(tmp_path: Path) -> None:
    (tmp_path / "watch.py").write_text(WATCH)
    stages = "stages=[{steps: 1}, {steps: 1}]"
    chosen = (stages, "rollout.mode=ahead", "plugins=[./watch.py]", "output_dir=out")
    result = run(*SIZES, *chosen, cwd=tmp_path)
    assert result.status == 0, result.err
    said = [line for line in result.out.splitlines() if line.startswith("engine")]
    assert said == ["engine start", "engine close"] * 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss.foo=1", "stage 2: unknown key loss.foo. "),
        ("algorithm=gpro", "stage 2: there is no algorithm called 'gpro'. Did you mean 'grpo'?"),
        ("loss", "stage 2: 'loss' is not an override"),
        ("train.steps=30", "stage 2 overrides train.steps, which is the stage's own"),
    ],
)
def test_a_mistake_in_a_stage_is_a_user_error_that_names_the_stage(
    override: str, said: str
) -> None:
    stages = f"stages=[{{steps: 2}}, {{steps: 2, overrides: ['algorithm=grpo', '{override}']}}]"
    with pytest.raises(rlkit.UserError) as told:
        rlkit.train(stages, "dry_run=true")
    assert str(told.value).startswith(said)
