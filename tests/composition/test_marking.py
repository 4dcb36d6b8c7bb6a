"""What marks depend on, as settings that must agree."""

from __future__ import annotations

from pathlib import Path

from rlkit.composition.hydra_groups import import_before_compose
from rlkit.composition.marking import marking
from rlkit.registry import build, scoped
from rlkit.rewards.on_tasks import OnTasks
from rlkit.rewards.task import TaskReward, default_rewards
from tests.compositions import composed


def test_settings_that_change_marks_are_named_and_those_of_speed_are_not() -> None:
    found = marking({"exact": build("reward", "exact", extract="last_number")})
    assert found["reward.exact.extract"] == "last_number"
    found = marking({"math": build("reward", "math", workers=3, timeout=9.0, tolerance=0.1)})
    assert found["reward.math.tolerance"] == 0.1 and found["reward.math.timeout"] == 9.0
    assert not {"reward.math.workers", "reward.math.source"} & {*found}


def test_a_task_that_scores_has_its_own_settings() -> None:
    task = build("task", "reasoning_gym", answer_format="tag", params={"max_terms": 2})
    found = marking(default_rewards(task, "reasoning_gym"))
    assert found["task.answer_format"] == "tag" and found["task.params.max_terms"] == 2


def test_another_text_of_an_own_reward_is_another_source(
    tmp_path: Path, own_registry: None
) -> None:
    file = tmp_path / "mine.py"
    text = "def mine(prompts, completions, **columns):\n    return [1.0 for _ in prompts]\n"
    file.write_text(text)
    found = []
    for each in (text, text.replace("1.0", "0.5")):
        file.write_text(each)
        with scoped():
            rewards = composed(*import_before_compose([f"reward=[{file}:mine]"])).rewards
            file.write_text("an edit while the run goes on")
            found.append(marking(rewards))
    before, after = found
    assert {key for key in before if before[key] != after[key]} == {"reward.mine.source"}


def test_two_tasks_of_a_mix_that_score_are_told_apart() -> None:
    found = marking(
        {
            f"{name}/arithmetic": OnTasks(
                TaskReward(build("task", "arithmetic", digits=digits)), "arithmetic", {name: ()}
            )
            for name, digits in (("a", 1), ("b", 2))
        }
    )
    assert (found["task.parts.a.digits"], found["task.parts.b.digits"]) == (1, 2)
