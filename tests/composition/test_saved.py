"""A run's own settings as the defaults of an evaluation: what is taken, left and given."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rlkit.composition.saved import choices, same_problems, saved_config, with_saved
from rlkit.errors import UserError
from rlkit.runs.checkpoint import save_tree
from rlkit.training.counters import Counters
from tests.compositions import raw_of

RUN = (
    *("task=jsonl", "task.path=train.jsonl", "task.suffix=' Answer:'", "reward=[math,overlong]"),
    *("reward.overlong.weight=0.5", "rollout.temperature=0.6", "rollout.stop=['#']"),
    *("rollout.mode=ahead", "rollout.num_generations=4", "eval.problems=9", "eval.samples=3"),
    *("model.name=big", "model.dtype=bfloat16", "model.lora.r=8", "train.steps=7", "seed=5"),
)


def evaluated(*overrides: str, run: tuple[str, ...] = RUN) -> tuple[dict[str, Any], Any]:
    saved = json.loads(json.dumps(raw_of(*run)))
    given = ["model.name=run/checkpoint-7", *overrides]
    return with_saved(raw_of(*choices(saved, overrides), *given), saved, overrides), saved


def test_the_runs_own_settings_hold() -> None:
    raw, saved = evaluated()
    assert raw["task"] == saved["task"] and raw["reward"] == saved["reward"]
    assert raw["eval"] == saved["eval"] and raw["seed"] == 5
    assert (raw["rollout"]["temperature"], raw["rollout"]["stop"]) == (0.6, ["#"])
    assert raw["model"]["name"] == "run/checkpoint-7" and raw["model"]["dtype"] == "bfloat16"
    assert same_problems(raw, saved)


def test_what_only_training_uses_stays_at_its_default() -> None:
    raw, _ = evaluated()
    default = raw_of("task=jsonl")
    assert raw["rollout"]["mode"] == "sync" and raw["model"]["lora"]["r"] == 0
    assert raw["rollout"]["num_generations"] == default["rollout"]["num_generations"]
    assert raw["train"] == default["train"] and raw["loss"] == default["loss"]


@pytest.mark.slow
def test_the_environment_and_the_tools_of_a_run_are_there_but_for_named_benchmarks() -> None:
    chosen = ("environment=python", "environment.time_limit=3", "tools=[./t.py:search]")
    run = (*RUN, *chosen, "turns.max=4")
    raw, saved = evaluated(run=run)
    assert saved["environment"]["time_limit"] == 3 and saved["turns"]["max"] == 4
    assert all(raw[key] == saved[key] for key in ("environment", "tools", "turns"))
    other, _ = evaluated("turns.max=2", "environment=frozen_lake", run=run)
    assert other["turns"]["max"] == 2 and other["environment"]["name"] == "frozen_lake"
    bare = with_saved(raw_of(*choices(saved, [])), saved, [], episodes=False)
    assert bare.get("environment") is None and not bare.get("tools")


def test_overrides_are_on_top_even_where_they_restate_a_default() -> None:
    raw, saved = evaluated("rollout.temperature=1.0", "task.suffix=''", "eval.samples=1")
    assert raw["rollout"]["temperature"] == 1.0 and raw["eval"]["samples"] == 1
    assert raw["task"]["suffix"] == "" and raw["task"]["path"] == "train.jsonl"
    assert raw["rollout"]["stop"] == ["#"]
    assert not same_problems(raw, saved), "another prompt is another task"


def test_another_file_keeps_the_form_of_the_task_and_is_read_whole() -> None:
    raw, saved = evaluated("task.path=test.jsonl")
    assert raw["task"] == saved["task"] | {"path": "test.jsonl"}
    assert raw["reward"] == saved["reward"] and not same_problems(raw, saved)
    assert raw["eval"]["problems"] == raw_of()["eval"]["problems"], "9 was for the run's problems"
    assert evaluated("task.path=test.jsonl", "eval.problems=4")[0]["eval"]["problems"] == 4


@pytest.mark.slow
def test_another_task_brings_its_own_rewards() -> None:
    raw, saved = evaluated("task=arithmetic", run=(*RUN, "eval.task=reasoning_gym"))
    assert raw["task"] == raw_of()["task"] and not raw.get("reward")
    assert raw["eval"]["task"] is None and not same_problems(raw, saved)
    chosen, _ = evaluated("task=arithmetic", "reward=[exact]")
    assert list(chosen["reward"]) == ["exact"]


def test_a_task_that_was_saved_before_a_setting_came_is_still_the_runs() -> None:
    """A missing setting counts as its default: the problems are those that the run held out."""
    saved = json.loads(json.dumps(raw_of(*RUN)))
    del saved["task"]["overlong"], saved["eval"]["task"]
    for overrides, same in (([], True), (["task.overlong=drop"], False)):
        composed = raw_of(*choices(saved, overrides), *overrides)
        assert same_problems(with_saved(composed, saved, overrides), saved) == same


def test_a_reward_chosen_here_is_the_only_one() -> None:
    raw, saved = evaluated("reward=[exact]")
    assert list(raw["reward"]) == ["exact"] and same_problems(raw, saved)


def test_a_setting_the_run_did_not_know_keeps_its_default() -> None:
    saved = json.loads(json.dumps(raw_of(*RUN)))
    del saved["eval"]["greedy"], saved["rollout"]["stop"]
    saved["rollout"]["gone"] = 3
    raw = with_saved(raw_of(*choices(saved, [])), saved, [])
    assert raw["eval"]["greedy"] is True and raw["rollout"]["stop"] == []
    assert "gone" not in raw["rollout"]


def test_an_evaluation_has_the_weights_that_schedules_and_multipliers_ended_with(
    tmp_path: Path,
) -> None:
    saved = raw_of(
        *("task=jsonl", "reward=[math,overlong]", "reward.overlong.limit=0.1"),
        "reward.math.weight={kind: linear, start: 1, end: 0.5, steps: 9}",
    )
    (tmp_path / "run_config.json").write_text(json.dumps(saved))
    assert saved_config(str(tmp_path)) == json.loads(json.dumps(saved)), "no checkpoint's state"
    values = {
        "reward.math.weight": 0.75,
        "reward.overlong.multiplier": 2.5,
        "anchor.beta": 0.1,
        "reward.gone.weight": 3.0,
    }
    (tmp_path / "state").mkdir()
    save_tree(tmp_path / "state" / "counters", asdict(Counters(step=3, values=values)))
    found = saved_config(str(tmp_path))
    assert found is not None and found["reward"].keys() == {"math", "overlong"}
    assert found["reward"]["math"] == saved["reward"]["math"] | {"weight": 0.75}
    assert found["reward"]["overlong"] == saved["reward"]["overlong"] | {"multiplier": 2.5}
    assert found["anchor"] == saved["anchor"]


def test_what_was_an_object_in_memory_is_asked_for(tmp_path: Path) -> None:
    saved = json.loads(json.dumps(raw_of(*RUN)))
    saved["task"] |= {"name": "dataset", "path": "object list sha256:0123"}
    with pytest.raises(UserError, match="its task as an object list in memory: choose one here"):
        choices(saved, [])
    assert "task=" not in " ".join(choices(saved, ["task=jsonl"]))


@pytest.mark.parametrize("whole", ["algorithm=grpo", "+experiment=gsm8k", "experiment=gsm8k"])
def test_a_whole_composition_takes_nothing_from_the_run(whole: str, tmp_path: Path) -> None:
    (tmp_path / "run_config.json").write_text('{"seed": 5}')
    assert saved_config(str(tmp_path)) == {"seed": 5}
    assert saved_config(str(tmp_path), [whole]) is None
    assert saved_config(str(tmp_path / "none")) is None
    assert not same_problems(raw_of(), None)
