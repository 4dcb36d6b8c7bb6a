"""Every composition, every part that none of them has, and every setting, on the pretend device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.composition.config_files import configs_folder
from rlkit.registry import build, names
from tests.cli import metrics, without_times
from tests.compositions import raw_of
from tests.device.pretend import DEVICE, Tagged
from tests.device.runs import algorithm, raw_like, small_run, train

pytestmark = pytest.mark.slow

COMPOSITIONS = sorted(path.stem for path in (configs_folder() / "algorithm").glob("*.yaml"))
RUN_KINDS = ("buffer", "anchor", "schedule")
"""Kinds whose parts do something between the steps; the others are in test_parts.py."""
PART_SETTINGS: dict[str, dict[str, Any]] = {
    "anchor=convex": {"beta": 0.1},
    "anchor=ema": {"beta": 0.1, "bias_corrected": True},
    "anchor=lagged": {"beta": 0.1, "lag": 1},
    "anchor=periodic": {"beta": 0.1, "every": 1},
    "anchor=previous": {"beta": 0.1},
    "schedule=periodic": {"every": 1, "reset_optimizer": True},
}
OFFLINE = {"pairs", "stored"}
"""Buffers that need a file; the responses they give are on the CPU like any other's."""
LORA = {"lora": {"r": 4}}
HOST = {"beta": 0.1, "device": "cpu"}
SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "bfloat16": ("remix", {}, {"model": {"dtype": "bfloat16"}}),
    "autocast": ("remix", {}, {"model": {"autocast": "bfloat16"}}),
    "recompute": ("grpo", {}, {"model": {"gradient_checkpointing": True}}),
    "dropout": ("grpo", {}, {"model": {"lora": {"r": 4, "dropout": 0.5}}}),
    "dropout, recompute": (
        "grpo",
        {},
        {"model": {"gradient_checkpointing": True, "lora": {"r": 4, "dropout": 0.5}}},
    ),
    "copies on the CPU": ("grpo", {"anchor": "base"}, {"anchor": HOST}),
    "averages on the CPU": ("grpo", {"anchor": "ema"}, {"anchor": HOST}),
    "adapters": ("remix", {}, {"model": LORA}),
    "adapters, copies on the CPU": (
        "grpo",
        {"anchor": "previous"},
        {"model": LORA, "anchor": HOST},
    ),
    "critic": ("remix_ppo", {}, {}),
    "critic, adapters": ("ppo", {}, {"model": LORA}),
    "KL in the reward": (
        "reinforce_pp",
        {"anchor": "base"},
        {"anchor": {"beta": 0.1, "placement": "reward"}},
    ),
    "lag": (
        "grpo",
        {"loss": "grpo_behavior"},
        {"rollout": {"sync_every": 2}, "train": {"lr_ess": 1.0}},
    ),
    "partial": (
        "grpo",
        {"loss": "grpo_behavior"},
        {"rollout": {"oversample": 0.5, "round_tokens": 2}},
    ),
    "layer_skip": ("grpo", {"rollout": "layer_skip"}, {}),
    "truncated": ("grpo", {}, {"rollout": {"top_p": 0.9, "top_k": 5}}),
    "temperature": ("grpo", {}, {"rollout": {"temperature": 0.7}}),
    "stop texts": ("grpo", {}, {"rollout": {"stop": ["#"]}}),
    "buffer on disk": ("remix", {}, {"buffer": {"storage": "disk"}}),
}
SECOND_STEP = {"averages on the CPU", "adapters, copies on the CPU", "lag"}
"""Settings that are about the step after the first."""


def missing(kind: str) -> list[str]:
    """The parts of a kind that are in no composition."""
    used = {algorithm(name)[0][kind]["name"] for name in COMPOSITIONS}
    return sorted({*names(kind)} - used - OFFLINE)


def check_on_device(trainer: Any) -> None:
    """It trained there: the weights are on the device, and some of them moved."""
    weights = trainer.session.policy.model.parameters()
    assert all(isinstance(weight, Tagged) and weight.device == DEVICE for weight in weights)


@pytest.mark.parametrize("name", ["prorl", "topppo"])
def test_compositions_are_made_as_hydra_makes_them(name: str) -> None:
    tuned = ("train", "eval", "rollout", "output_dir")

    def same(raw: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in raw.items() if key not in tuned}

    assert same(raw_like(name)) == same(raw_of(f"algorithm={name}"))


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_step_of_a_composition(name: str, tmp_path: Path) -> None:
    with small_run(raw_like(name), tmp_path) as (trainer, _):
        train(trainer)
        trainer.state.state_dict()
        check_on_device(trainer)
        assert "policy/loss" in trainer.count.metrics, "no optimizer step was taken"


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in RUN_KINDS for name in missing(kind)]
)
def test_steps_with_a_part_that_no_composition_has(kind: str, name: str, tmp_path: Path) -> None:
    loss = "luffy" if kind == "buffer" and build("buffer", name).gives_expert else "grpo"
    changes = {kind: PART_SETTINGS.get(f"{kind}={name}", {})}
    with small_run(raw_like("grpo", **{kind: name, "loss": loss}), tmp_path, changes) as (run, _):
        train(run, steps=2)
        run.state.state_dict()
        check_on_device(run)


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_under_a_setting(name: str, tmp_path: Path) -> None:
    base, chosen, changes = SETTINGS[name]
    with small_run(raw_like(base, **chosen), tmp_path, changes) as (trainer, _):
        train(trainer, steps=2 if name in SECOND_STEP else 1)
        trainer.state.state_dict()
        check_on_device(trainer)


def test_a_run_has_the_metrics_of_the_cpu(tmp_path: Path) -> None:
    """With evaluations, a replayed batch and the checkpoint at the end."""
    found = []
    for place in ("cuda", "cpu"):
        changes = {"model": {"device": place}, "train": {"steps": 2, "updates_per_batch": 2}}
        with small_run(raw_like("remix"), tmp_path / place, changes) as (trainer, _):
            assert trainer.run()
        found.append(without_times(metrics(tmp_path / place)))
    assert len(found[0]) == 4 and found[0] == found[1]


def test_a_run_continues_on_the_device_from_its_checkpoint(tmp_path: Path) -> None:
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    changes = {"train": {"steps": 2}, "checkpoint": {"every": 1}}
    with small_run(raw_like("remix"), whole, changes) as (trainer, _):
        trainer.run()
    first = whole / "checkpoint-1"
    with small_run(raw_like("remix"), rest, changes, first) as (trainer, _):
        trainer.state.load(first)
        trainer.run()
        check_on_device(trainer)
    rows = without_times(metrics(rest))
    assert len(rows) == 2 and rows == without_times(metrics(whole))[-2:]
