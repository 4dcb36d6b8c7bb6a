"""What an evaluation is composed of, where it is saved, and how many problems it says it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlkit.composition.composition import Composition
from rlkit.composition.evaluate import (
    asked,
    configuration,
    default_folder,
    problems_of,
    rows_of,
)
from rlkit.errors import UserError
from rlkit.interfaces import Task, TaskData
from rlkit.models.policy import Policy
from tests.compositions import composed
from tests.steps import ROWS


class Two(Task):
    """Problems to train on, some held out, and all together."""

    def load(self, seed: int) -> TaskData:
        return TaskData(train=ROWS[:4], eval=ROWS[4:])

    def all_problems(self, seed: int) -> Sequence[Mapping[str, Any]]:
        return ROWS


def with_task(task: Task, *overrides: str) -> Composition:
    return replace(composed("reward=[exact]", *overrides), task=task, eval_task=task)


@pytest.mark.parametrize(
    ("held_out", "asked_for", "words"),
    [
        (False, 99, f"{len(ROWS)} of {len(ROWS)} problems"),
        (False, 3, f"3 of {len(ROWS)} problems"),
        (True, 99, f"{len(ROWS) - 4} of {len(ROWS) - 4} held-out problems"),
    ],
)
def test_an_evaluation_says_how_many_of_how_many(
    policy: Policy, held_out: bool, asked_for: int, words: str
) -> None:
    c = with_task(Two(), f"eval.problems={asked_for}")
    rows = rows_of(c, held_out=held_out)
    found = problems_of(c, policy, rows, held_out=held_out)
    assert found.words == words
    assert [p.text_or_messages for p in found.prompts] == [
        row["prompt"] for row in (ROWS[4:] if held_out else ROWS)[:asked_for]
    ]


def test_a_problem_left_out_for_its_length_is_not_counted(policy: Policy) -> None:
    """The second is longer than a prompt may be."""
    rows = [{"prompt": text, "answer": "1"} for text in ("1+1=", "1" * 30, "2+2=")]
    c = with_task(Two(), "rollout.max_prompt_length=9")
    c.eval_task.config = c.eval_task.config.model_copy(update={"overlong": "drop"})
    assert problems_of(c, policy, rows, held_out=False).words == "2 of 3 problems"


def test_a_task_without_problems_is_refused() -> None:
    class Empty(Two):
        def all_problems(self, seed: int) -> Sequence[Mapping[str, Any]]:
            return []

    with pytest.raises(UserError, match="no problems to evaluate on"):
        rows_of(with_task(Empty()), held_out=False)


def test_how_problems_are_answered_is_said_in_words() -> None:
    own = "eval.sampling={temperature:0.6,top_p:0.95,max_completion_length:2048}"
    said = asked(composed(own, "eval.samples=4", "rollout.top_k=20"))
    assert said.startswith(
        "4 sampled and one greedily, at temperature 0.6, top_p 0.95, top_k 20, at most 2048 tokens."
    )
    assert said.endswith("right if the reward 'arithmetic' gives it 1.")


@pytest.mark.parametrize("given", [["task=arithmetic"], ["eval.task=arithmetic"]])
def test_a_model_needs_a_task(given: list[str]) -> None:
    with pytest.raises(UserError, match="say what to evaluate Some/Model on"):
        configuration("Some/Model", ["eval.problems=3"])
    raw, saved = configuration("Some/Model", given)
    assert raw["model"]["name"] == "Some/Model" and saved is None
    assert configuration("embedded", [])[0]["task"]["name"] == "arithmetic"


def test_results_lie_under_the_models_name(tmp_path: Path) -> None:
    def name(model: str) -> str:
        folder = default_folder(model)
        assert folder.parent == Path("evals")
        return folder.name[: -len("-20260101-000000")]

    assert name("Qwen/Qwen2.5-0.5B") == "Qwen2.5-0.5B"
    assert name("runs/remix/checkpoint-50") == "remix-checkpoint-50"
    assert name("pkg://some/odd name.gguf") == "odd-name.gguf"
    inside = tmp_path / "run" / "checkpoint-3"
    inside.mkdir(parents=True)
    (inside / "manifest.json").write_text(json.dumps({"step": 3}))
    assert name(str(tmp_path / "run")) == "run-checkpoint-3"
