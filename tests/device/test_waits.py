"""How often the host waits for the device: per step and per position, not per layer or metric."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.registry import build, names
from tests.device.parts import SPLITS, gradients
from tests.device.pretend import DEVICE, pretending
from tests.device.runs import raw_like, small_run, train

POSITIONS = 6
GENERATION = [
    f"rlkit/rollout/{name}.py"
    for name in ("hf", "hf_batch", "sampling", "shared_prompts", "grid", "decoders")
]
SEARCHES = {
    **{"bapo": 13, "bapo_authors_repo": 13, "m2po": 5, "m2po_areal": 5, "m2po_authors_repo": 5},
    **{"clip_cov": 3, "spear_cov": 6, "kl_cov": 3, "p3o": 1},
}
"""Losses that search or sort the tokens of a minibatch, and how often they may wait for it."""


def waits_of(folder: Path, changes: dict[str, Any], name: str = "grpo", **chosen: str) -> Counter:
    """The waits of a step, by file."""
    rollout = {"max_completion_length": POSITIONS, **changes.pop("rollout", {})}
    with small_run(raw_like(name, **chosen), folder, {**changes, "rollout": rollout}) as (
        trainer,
        pretence,
    ):
        trainer.parts.anchor.rebase(trainer.session.policy)
        pretence.waits.clear()
        train(trainer)
    found: Counter[str] = Counter()
    for where, n in pretence.waits.items():
        found[where.partition(":")[0]] += n
    return found


@pytest.mark.slow
@pytest.mark.parametrize("stop", [[], ["#", "1"]])
def test_generation_waits_once_per_position(stop: list[str], tmp_path: Path) -> None:
    found = waits_of(tmp_path, {"rollout": {"stop": stop, "num_generations": 4}})
    assert sum(found[file] for file in GENERATION) <= POSITIONS + 3, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bound"), [("grpo", 5), ("remix", 6), ("online_dpo", 6), ("ppo", 9), ("exgrpo", 6)]
)
def test_a_step_waits_for_its_updates_a_few_times(name: str, bound: int, tmp_path: Path) -> None:
    """Loss and gradient norm of a minibatch; its metrics and log-probs, and what is recorded of its
    tokens, once per step."""
    found = waits_of(tmp_path, {"train": {"updates_per_batch": 1}}, name)
    for file in GENERATION:
        found.pop(file, None)
    assert found.total() <= bound, found


def test_more_micro_batches_do_not_wait_more_often(tmp_path: Path) -> None:
    few = waits_of(tmp_path / "few", {"train": {"micro_batch_tokens": 1000}}, "remix")
    many = waits_of(tmp_path / "many", {"train": {"micro_batch_tokens": 16}}, "remix")
    assert few == many


def test_adapters_and_their_references_do_not_wait_per_layer(tmp_path: Path) -> None:
    """Once, when the reference is made, for whether its adapters add anything."""
    changes = {"model": {"lora": {"r": 4}}, "anchor": {"beta": 0.1}}
    plain = waits_of(tmp_path / "plain", {"anchor": {"beta": 0.1}}, anchor="base")
    adapted = waits_of(tmp_path / "adapted", changes, anchor="base")
    assert adapted.total() <= plain.total() + 1


@pytest.mark.parametrize("name", names("loss"))
def test_a_loss_leaves_the_device_alone(name: str) -> None:
    with pretending() as pretence:
        gradients(DEVICE, SPLITS["one"], (build("loss", name), (), None))
    assert pretence.waits_in("algorithms/") + pretence.waits_in("rlkit/ops/") <= SEARCHES.get(
        name, 0
    ), pretence.waits


@pytest.mark.parametrize("name", names("correction"))
def test_a_correction_leaves_the_device_alone(name: str) -> None:
    with pretending() as pretence:
        corrections = [(name, build("correction", name))]
        gradients(DEVICE, SPLITS["one"], (build("loss", "rloo"), corrections, None))
    assert not pretence.waits_in("algorithms/") + pretence.waits_in("rlkit/ops/"), pretence.waits


def test_a_hidden_item_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that reads a number of its own is counted by its line."""
    from algorithms.ppo import PPO

    real = PPO.__call__

    def reads(self: Any, policy: Any, batch: Any) -> Any:
        assert torch.isfinite(policy.logp.detach()).all().item()
        return real(self, policy, batch)

    with pretending() as pretence:
        gradients(DEVICE, SPLITS["one"], (build("loss", "ppo"), (), None))
        before = pretence.waits.total()
        monkeypatch.setattr(PPO, "__call__", reads)
        gradients(DEVICE, SPLITS["one"], (build("loss", "ppo"), (), None))
        assert pretence.waits.total() == 2 * before + 1
