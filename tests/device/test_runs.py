"""Every composition, every part that none of them has, and every setting, on the pretend device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli import metrics, without_times
from tests.compositions import raw_of
from tests.device.chosen import (
    COMPOSITIONS,
    SECOND_STEP,
    SETTINGS,
    UNCHOSEN,
    with_part,
    with_setting,
)
from tests.device.pretend import DEVICE, Tagged
from tests.device.runs import raw_like, small_run, take_steps

pytestmark = pytest.mark.slow


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
    found = take_steps(small_run(raw_like(name), tmp_path), check_on_device)
    assert "policy/loss" in found, "no optimizer step was taken"


@pytest.mark.parametrize(("kind", "name"), UNCHOSEN)
def test_steps_with_a_part_that_no_composition_has(kind: str, name: str, tmp_path: Path) -> None:
    raw, changes = with_part(kind, name)
    take_steps(small_run(raw, tmp_path, changes), check_on_device, steps=2)


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_under_a_setting(name: str, tmp_path: Path) -> None:
    raw, changes = with_setting(name)
    steps = 2 if name in SECOND_STEP else 1
    take_steps(small_run(raw, tmp_path, changes), check_on_device, steps)


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
