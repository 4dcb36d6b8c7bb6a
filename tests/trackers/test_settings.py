"""One key per setting, and which runs differ by their seed alone."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.composition.chosen import told_to_trackers
from rlkit.trackers.settings import flat_settings, group_of
from tests.compositions import raw_of


def told(*overrides: str) -> dict[str, Any]:
    return told_to_trackers(raw_of(*overrides), overrides, ())


def test_a_part_is_a_name_and_settings_beside_it() -> None:
    found = flat_settings(
        {
            "algorithm": "grpo",
            "loss": {"name": "ppo", "clip_low": 0.2},
            "reward": {"math": {"name": "math", "weight": 2.0}, "own": {"name": "plain", "n": 1}},
            "correction": {},
            "model": {"name": "embedded", "lora": {"r": 0}},
            "plugins": ["a.b"],
            "stages": [],
        }
    )
    assert found == {
        "algorithm": "grpo",
        "loss": "ppo",
        "loss.clip_low": 0.2,
        "reward": ["math", "own"],
        "reward.math.weight": 2.0,
        "reward.own.name": "plain",
        "reward.own.n": 1,
        "correction": [],
        "model.name": "embedded",
        "model.lora.r": 0,
        "plugins": ["a.b"],
    }


def test_a_stage_has_its_names_and_what_is_its_own() -> None:
    found = flat_settings(
        {
            "algorithm": "remix",
            "loss": {"name": "remix", "epsilon": 0.2},
            "train": {"steps": 30, "learning_rate": 1.0},
            "stages": [
                {
                    "algorithm": "sft",
                    "loss": {"name": "sft"},
                    "train": {"steps": 10, "learning_rate": 1.0},
                    "stages": [],
                },
                {"algorithm": "remix", "loss": {"name": "remix", "epsilon": 0.3}, "stages": []},
            ],
        }
    )
    assert {key: value for key, value in found.items() if key.startswith("stage.")} == {
        "stage.1.algorithm": "sft",
        "stage.1.loss": "sft",
        "stage.1.train.steps": 10,
        "stage.2.algorithm": "remix",
        "stage.2.loss": "remix",
        "stage.2.loss.epsilon": 0.3,
    }
    assert found["train.learning_rate"] == 1.0 and "stages" not in found


def test_seeds_of_one_setting_share_a_group() -> None:
    first = group_of(told("algorithm=grpo", "seed=0"))
    assert first.startswith("grpo-")
    for other in ("seed=1", "output_dir=elsewhere", "resume=auto", "checkpoint.every=7"):
        assert group_of(told("algorithm=grpo", "seed=0", other)) == first, other
    tracked = "tracker=[wandb]", "tracker.wandb.mode=offline", "tracker.wandb.tags=[x]"
    assert group_of(told("algorithm=grpo", *tracked)) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", ["train.learning_rate=1e-3", "algorithm=remix", "loss.clip_low=0.1", "eval.problems=7"]
)
def test_another_setting_is_another_group(other: str) -> None:
    assert group_of(told("algorithm=grpo", other)) != group_of(told("algorithm=grpo"))


def test_seeds_of_a_run_in_stages_share_a_group() -> None:
    """The seed of a later stage derives from the run's."""
    stage = {"loss": {"name": "ppo"}, "stages": []}
    runs = [{"seed": s, "stages": [{**stage, "seed": 100 + s}], "algorithm": "a"} for s in (1, 2)]
    assert group_of(runs[0]) == group_of(runs[1])
    other = {"seed": 1, "stages": [{"loss": {"name": "grpo"}}], "algorithm": "a"}
    assert group_of(other) != group_of(runs[0])
