"""From a dry run to the end of a run: what is told, checked and left behind."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import rlkit.composition.execute as module
from anchors.base import BASE, BaseAnchor
from rlkit.composition.compose import compose
from rlkit.composition.execute import components_of_stages, execute
from rlkit.composition.hydra_groups import import_before_compose
from rlkit.errors import UserError
from rlkit.models.policy import FrozenPolicy
from rlkit.rollout.hf import HFRollout
from rlkit.runs.checkpoint import list_checkpoints
from rlkit.tasks.prompts import Prompts
from rlkit.training.trainer import Trainer
from tests.cli import SMALL
from tests.compositions import raw_of


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_tells_the_plan_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(raw_of(*SMALL, "dry_run=true"), []) == Path("out")
    said = capsys.readouterr().out
    assert "A step trains 4 groups" in said and not Path("out").exists()


def test_a_dry_run_of_stages_tells_each(capsys: pytest.CaptureFixture[str]) -> None:
    raw = raw_of(*SMALL, "dry_run=true")
    execute(raw, [], [raw, {**raw, "loss": raw_of("loss=ppo")["loss"]}])
    said = capsys.readouterr().out
    assert said.index("Stage 1 of 2") < said.index("Stage 2 of 2") < said.index("loss=ppo")


def test_a_run_that_is_finished_is_told_and_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What became of the prompts is told too, before the first step."""
    monkeypatch.setattr(Prompts, "description", lambda prompts: [f"{len(prompts)} prompts."])
    raw = raw_of(*SMALL, "train.steps=1", "eval.problems=2", "train.prompts_per_step=2")
    folder = execute(raw, ["train.steps=1"])
    out = capsys.readouterr().out
    assert "Done: 1 step, " in out and "Resumed" not in out
    assert out.index("Loading embedded\n") < out.index("Run folder:") < out.index("step 0/1")
    assert out.count("step 1/1") == 1 and "checkpoint-1 saved\n" in out
    assert out.index("51570 prompts.") < out.index("step 0/1")
    assert (folder / "overrides").read_text() == "train.steps=1\n"
    used = json.loads((folder / "components.json").read_text())
    assert used.keys() == compose(raw).every_part.keys()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    execute({**raw, "resume": "auto"}, [])
    assert "is finished: 1 steps are done." in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(UserError, match="already holds a run"):
        execute(raw, [])
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-1"]
    more = {**raw, "resume": "auto", "resume_force": ["train.steps"]}
    execute({**more, "train": {**raw["train"], "steps": 2}}, [])
    out = capsys.readouterr().out
    assert "Loading out/checkpoint-1\n" in out
    assert "Resumed from step 1 of 2: out/checkpoint-1\n" in out


def test_a_run_is_done_even_if_its_report_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> Path:
        raise UserError("the disk is full")

    monkeypatch.setattr(module, "write_report", full)
    raw = raw_of(*SMALL, "train.steps=1", "eval.problems=2", "train.prompts_per_step=2")
    execute(raw, [])
    out = capsys.readouterr().out
    assert "Done: 1 step, " in out and "No report: the disk is full" in out
    execute({**raw, "resume": "auto"}, [])
    assert "is finished: 1 steps are done. No report: the disk is full" in capsys.readouterr().out


def test_a_run_that_goes_back_is_the_newest_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoints that it leaves behind are taken by no command; their metrics are gone too."""
    raw = raw_of(
        *SMALL,
        *("train.steps=3", "eval.problems=2", "train.prompts_per_step=2"),
        *("checkpoint.every=1", "checkpoint.keep=9"),
    )
    folder = execute(raw, [])
    capsys.readouterr()
    back = {**raw, "resume": str(folder / "checkpoint-1"), "resume_force": ["train.steps"]}
    execute({**back, "train": {**raw["train"], "steps": 2}}, [])
    said = capsys.readouterr().out
    assert "checkpoint-3 is of a later step than the one continued from" in said
    names = [path.name for path in list_checkpoints(folder)]
    assert names == ["checkpoint-1", "checkpoint-2"]
    assert (folder / "checkpoint-3-abandoned").is_dir()


def test_components_of_stages_are_told_apart() -> None:
    parts = [compose(raw_of("loss=ppo")), compose(raw_of("loss=grpo"))]
    found = components_of_stages(parts)
    assert found["loss (stage 1)"]["name"] == "ppo" and found["loss (stage 2)"]["name"] == "grpo"


def test_a_stage_that_is_over_keeps_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its anchor's, nor its engine's copy, nor the optimizer."""
    train, left, alive = Trainer.run, list[weakref.ref[Any]](), list[int]()

    def run(trainer: Trainer) -> bool:
        gc.collect()
        alive.append(sum(ref() is not None for ref in left))
        complete = train(trainer)
        anchor, engine = trainer.parts.anchor, trainer.session.engine
        assert isinstance(anchor, BaseAnchor) and isinstance(engine, HFRollout)
        frozen = anchor.frozen[BASE]
        assert isinstance(frozen, FrozenPolicy) and engine.model is not trainer.session.policy.model
        copies = frozen.model, engine.model, trainer.state.updater.learner.optimizer
        left.extend(map(weakref.ref, copies))
        return complete

    monkeypatch.setattr(Trainer, "run", run)
    chosen = ("anchor=base", "anchor.beta=0.1", "rollout.sync_every=2", "train.steps=1")
    raw = raw_of(*SMALL, *chosen, "eval.problems=2", "train.prompts_per_step=2")
    execute(raw, [], [raw, raw, raw])
    assert alive == [0, 0, 0] and len(left) == 9


def test_a_reward_that_fails_is_found_before_the_model_and_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, own_registry: None
) -> None:
    monkeypatch.setattr(module, "open_session", pytest.fail)
    Path("mine.py").write_text("def mine(completions, gold):\n    return [0.0]\n")
    raw = raw_of(*import_before_compose([*SMALL, "reward=[./mine.py:mine]"]))
    with pytest.raises(UserError, match="needs the argument 'gold'"):
        execute(raw, [])
    assert not Path("out").exists()


def test_a_run_that_fails_in_its_first_step_leaves_its_name_free(own_registry: None) -> None:
    Path("mine.py").write_text(
        "def mine(completions, **_):\n"
        "    assert len(completions) < 9, 'too many'\n"
        "    return [0.0] * len(completions)\n"
    )
    raw = raw_of(*import_before_compose([*SMALL, "reward=[./mine.py:mine]"]))
    for _ in range(2):
        with pytest.raises(UserError, match="too many"):
            execute(raw, [])
        assert not Path("out").exists()


def test_out_of_memory_anywhere_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as while the model is loaded, or copied for an anchor."""

    def full(self: module.Run) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module.Run, "begin_or_resume", full)
    with pytest.raises(UserError, match=r"out of memory outside.*anchor\.device=cpu"):
        execute(raw_of(*SMALL), [])


GOOD = '{"prompt": "1+1=", "answer": "2"}\n{"prompt": "1+2=", "answer": "3"}\n'
FILE = ("task=jsonl", "task.path=good.jsonl", "model.name=model")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("task=jsonl", "model.name=model"), r"task\.path is not set"),
        ((*FILE, "task.path=no.jsonl"), r"task\.path=no\.jsonl does not exist"),
        ((*FILE, "task.path=empty.jsonl"), r"task\.path=empty\.jsonl is empty"),
        ((*FILE, "task.eval_path=broken.jsonl"), r"task\.eval_path=broken\.jsonl line 1 is not"),
        ((*FILE, "task.prompt_column=q"), r"task\.path=good\.jsonl has no column 'q'"),
        ((*FILE, "model.name=./no"), r"model\.name=\./no: there is no such folder"),
        (("reward=[./mine.py:two]",), "reward 'two' returned 2 values for 1 completions"),
        (("resume=/nonexistent",), "resume=/nonexistent: there is no such folder"),
        (("output_dir=run",), "run already holds a run"),
        (("output_dir=good.jsonl",), r"output_dir=good\.jsonl cannot be used.*is a file"),
        (("output_dir=good.jsonl/x",), r"output_dir=good\.jsonl/x cannot be used.*is a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_dry_run_refuses_what_cannot_start(
    arguments: tuple[str, ...], said: str, own_registry: None
) -> None:
    """Nothing is loaded or written, and the run folder is free afterwards."""
    Path("good.jsonl").write_text(GOOD)
    Path("empty.jsonl").touch()
    Path("broken.jsonl").write_text("{broken")
    Path("mine.py").write_text("def two(completions, **_):\n    return [0.0, 1.0]\n")
    Path("run/completions").mkdir(parents=True)
    Path("run/metrics.jsonl").write_text('{"step": 1}\n')
    given = import_before_compose([*SMALL, "dry_run=true", *arguments])
    before = sorted(Path().rglob("*"))
    raw = {**raw_of(*(each for each in given if not each.startswith("output_dir")))}
    for each in arguments:
        if each.startswith("output_dir="):
            raw["output_dir"] = each.partition("=")[2]
    with pytest.raises(UserError, match=said):
        execute(raw, [])
    assert [path for path in sorted(Path().rglob("*")) if "__pycache__" not in str(path)] == before


def test_a_dry_run_downloads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the model nor the data of the hub."""
    execute(raw_of("task=jsonl", "task.path=a/b", "model.name=c/d", "dry_run=true"), [])
    assert "the problems of a/b are not checked" in capsys.readouterr().out
