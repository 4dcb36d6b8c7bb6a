"""Anchors in real runs: what the base is after a rebirth, and combinations with one share of 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlkit.runs.checkpoint import load_tree
from tests.certain import HALF
from tests.cli import SMALL, metrics, run, without_times

Weights = dict[str, torch.Tensor]


def train(*arguments: str, out: str, cwd: Path) -> Path:
    """Half of each group succeeds, so that every step moves the weights."""
    steps = ("train.steps=3", "checkpoint.every=1", "checkpoint.keep=3", "anchor.beta=0.5")
    result = run(*SMALL, *steps, HALF, *arguments, f"output_dir={out}", cwd=cwd)
    assert result.status == 0, result.err
    return cwd / out


def policy(folder: Path, step: int) -> Weights:
    """The weights after a step."""
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


def reference(folder: Path, step: int, name: str) -> Weights:
    """The weights of a reference after a step."""
    frozen: Weights = load_tree(folder / f"checkpoint-{step}" / "state" / "anchor")["frozen"][name]
    return frozen


def equal(a: Weights, b: Weights) -> bool:
    shared = a.keys() & b.keys()
    assert shared, "nothing to compare"
    return all(torch.equal(a[key], b[key]) for key in shared)


@pytest.mark.slow
@pytest.mark.parametrize("anchor", ["base", "kl_convex", "convex"])
def test_after_a_rebirth_the_base_is_the_policy_of_the_last_step_before_it(
    anchor: str, tmp_path: Path
) -> None:
    """ReMix's pi_T with T = 2, bit for bit: neither the start nor the policy of step 3."""
    folder = train("algorithm=remix", f"anchor={anchor}", "schedule.at=2", out="out", cwd=tmp_path)
    base = reference(folder, 3, "base")
    assert equal(base, policy(folder, 2))
    assert not equal(base, policy(folder, 3))
    assert not equal(base, reference(folder, 2, "base"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "alone"),
    [(("anchor.base=1", "anchor.previous=0"), "base"), (("anchor.base=0",), "previous")],
    ids=["base", "previous"],
)
def test_a_share_of_one_trains_as_the_anchor_alone(
    shares: tuple[str, ...], alone: str, tmp_path: Path
) -> None:
    """Losses, gradient norms and every other figure of three steps, and the weights after each."""
    common = ("algorithm=remix", "train.learning_rate=1e-3")
    one = train(*common, f"anchor={alone}", out="one", cwd=tmp_path)
    both = train(*common, "anchor=convex", *shares, out="both", cwd=tmp_path)
    assert without_times(metrics(one)) == without_times(metrics(both))
    assert all(equal(policy(one, step), policy(both, step)) for step in (1, 2, 3))
    rows = [row for row in metrics(one) if "policy/loss" in row]
    assert rows[2][f"anchor/kl_{alone}"] > 0 and rows[2][f"anchor/weight_{alone}"] == 1


@pytest.mark.slow
def test_the_two_ends_of_the_combination_train_differently(tmp_path: Path) -> None:
    """Were they equal, the test above would say nothing."""
    common = ("algorithm=remix", "train.learning_rate=1e-3")
    ends = [train(*common, f"anchor={a}", out=a, cwd=tmp_path) for a in ("base", "previous")]
    assert not equal(*(policy(folder, 3) for folder in ends))
