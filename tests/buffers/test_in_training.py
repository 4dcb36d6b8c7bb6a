"""Every buffer inside real training steps: what goes in comes out, field by field."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from rlkit.batch import Group, Sample
from rlkit.composition.compose import compose
from rlkit.composition.config_files import configs_folder
from rlkit.composition.hydra_groups import store_groups
from rlkit.composition.session import RunScope, open_session
from rlkit.models.embedded import embedded_model_dir
from rlkit.registry import build, from_import_path, names
from rlkit.training.trainer import Trainer
from tests.cli import metrics

STEPS = 7
SETTINGS: dict[str, list[str]] = {
    "adaptive": ["buffer.refresh_every=2"],
    "buffer_matters": [],
    "exgrpo": ["buffer.start_at=0"],
    "expert": [],
    "fifo": [],
    "fresh_per": [],
    "highlight": [],
    "hpt": [],
    "luffy": [],
    "mix": ["buffer.first.name=fifo", "buffer.share=0.25"],
    "on_policy": [],
    "prioritized": ["buffer.storage=disk"],
    "prompt_replay": ["buffer.cooldown=1"],
    "repo": ["buffer.min_cache=2", "buffer.replayed=2"],
    "rlep": ["buffer.collect_steps=2"],
    "spear": ["buffer.size=2"],
    "value_decay": [],
    "zero_variance_filler": [],
}
"""What lets a buffer replay within a few steps on a few prompts."""
OFFLINE = {"pairs", "stored"}
"""Buffers that train what a file holds: test_pairs.py and tests/stored/test_stored_runs.py."""
NO_OLD = {"expert", "hpt", "luffy", "on_policy", "prompt_replay"}
"""Buffers that train new responses and demonstrations alone."""
WHOLE = {
    *("adaptive", "buffer_matters", "fifo", "fresh_per", "highlight", "prioritized"),
    *("value_decay", "zero_variance_filler"),
}
"""Buffers that replay groups as they were generated."""
REWARDS = """
def parity(completions, completion_ids, **columns):
    return [float(sum(ids) % 2) for ids in completion_ids]
"""
FIELDS = ("sample_id", "prompt_id", "reward", "rewards", "finish_reason", "source", "step")
TENSORS = ("response_ids", "loss_mask", "behavior_logp", "policy_version")


def trainer_of(name: str, folder: Path) -> Trainer:
    """A run on six prompts that come round again, with rewards that differ inside groups."""
    operands = list(itertools.product((2, 5, 8), (3, 7)))
    rows = [
        {"prompt": f"{a}+{b}+1+2+3=", "answer": "9", "solution": "05,06#09"} for a, b in operands
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own.py").write_text(REWARDS)
    expert = build("buffer", name).gives_expert
    overrides = [
        *(f"output_dir={folder}/out", "algorithm=grpo", f"loss={'luffy' if expert else 'grpo'}"),
        *(f"buffer={name}", "anchor=base", *SETTINGS[name]),
        *("task=jsonl", f"task.path={folder}/data.jsonl", f"task.eval_path={folder}/data.jsonl"),
        *(f"model.name={embedded_model_dir(0)}", "rollout.max_completion_length=14"),
        *("rollout.num_generations=4", "train.prompts_per_step=4", f"train.steps={STEPS}"),
        *("train.learning_rate=1e-4", "eval.every=null", "eval.problems=2"),
    ]
    reward = from_import_path("reward", f"{folder}/own.py:parity").name
    store_groups()
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        composed = hydra_compose("config", overrides=[*overrides, f"reward=[{reward}]"])
    raw: Any = OmegaConf.to_container(composed, resolve=True)
    made = compose(raw)
    session = open_session(made, RunScope.of(made))
    session.run_folder.open(raw, overrides, {}, 0)
    return Trainer(session)


def check_equal(found: Sample, made: Sample) -> None:
    for field in FIELDS:
        assert getattr(found, field) == getattr(made, field), field
    for field in TENSORS:
        a, b = getattr(found, field), getattr(made, field)
        assert a.dtype == b.dtype and torch.equal(a, b), field


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(names("buffer")) - OFFLINE))
def test_what_goes_in_comes_out(name: str, tmp_path: Path, own_registry: None) -> None:
    trainer = trainer_of(name, tmp_path)
    buffer = trainer.session.buffer
    made: dict[tuple[int, int], Sample] = {}  # by id and step: a demonstration comes again
    groups: list[list[int]] = []
    trained: list[list[Group]] = []
    real = buffer.build

    def watched(fresh: list[Group], batch: int, step: int) -> list[Group]:
        made.update({(s.sample_id, s.step): copy.deepcopy(s) for g in fresh for s in g.samples})
        groups.extend([s.sample_id for s in g.samples] for g in fresh)
        built = real(fresh, batch, step)
        trained.append(built)
        return built

    buffer.build = watched  # type: ignore[method-assign]
    try:
        trainer.run()
    finally:
        for tracker in trainer.session.trackers.values():
            tracker.close(failed=False)
        trainer.session.engine.close()
    check_samples(name, made, groups, trained)
    check_figures(trained, metrics(tmp_path / "out"))


def check_samples(
    name: str,
    made: dict[tuple[int, int], Sample],
    groups: list[list[int]],
    trained: list[list[Group]],
) -> None:
    """Samples are whole, once per step, with their prompt; groups stay together."""
    replayed = 0
    for step, batch in enumerate(trained, start=1):
        ids = [s.sample_id for g in batch for s in g.samples]
        assert len(set(ids)) == len(ids), "a sample twice in a step"
        for group in batch:
            for sample in group.samples:
                check_equal(sample, made[sample.sample_id, sample.step])
                assert sample.prompt_id == group.prompt.prompt_id
            old = [s for s in group.samples if s.step < step and s.source == "policy"]
            replayed += len(old)
            if name in WHOLE:
                assert [s.sample_id for s in group.samples] in groups, "a group was torn"
    assert (replayed > 0) == (name not in NO_OLD)


def check_figures(trained: list[list[Group]], rows: list[dict[str, float]]) -> None:
    """Ages and reuse as the run logs them are those of what it trained."""
    count = 0
    for step, (batch, row) in enumerate(
        zip(trained, [r for r in rows if "policy/lr" in r], strict=True), start=1
    ):
        samples = [s for g in batch for s in g.samples]
        ages = [step - s.step for s in samples]
        count += sum(sample.sample_id >= 0 for sample in samples)
        assert row["buffer/age_mean"] == pytest.approx(sum(ages) / len(ages))
        assert row["buffer/age_max"] == max(ages)
        assert row["buffer/fresh_fraction"] == pytest.approx(ages.count(0) / len(ages))
        assert row["buffer/reuse_mean"] == pytest.approx(count / max(1, row["rollouts/total"]))


def test_every_buffer_is_tried() -> None:
    assert set(SETTINGS) | OFFLINE == set(names("buffer"))
