"""The evaluations of a run: where each reads, writes and finds room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlkit.composition import evaluators
from rlkit.composition.composition import Composition
from rlkit.composition.session import RunScope, load_prompts
from rlkit.errors import UserError
from rlkit.evaluation.evaluator import keep_none
from rlkit.models.policy import Policy
from rlkit.rewards.judges import Judges
from tests.compositions import composed

SUMS = [{"prompt": "1+" * i + "1=", "answer": "1"} for i in range(1, 5)]


def with_file(folder: Path, *overrides: str) -> Composition:
    path = folder / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    return composed(f"eval.on=[{path}]", f"output_dir={folder}/out", *overrides)


def evaluators_of(*made_of: Any) -> Any:
    """The evaluations of a run, whose fields are looked at."""
    return evaluators.evaluators_of(*made_of)


def test_each_evaluation_has_its_own_problems_settings_and_files(
    policy: Policy, tmp_path: Path
) -> None:
    c = with_file(tmp_path, "eval.samples=2", "eval.on_samples={sums:3}", "eval.answers=1")
    _, held_out = load_prompts(c, policy)
    task, file = evaluators_of(c, policy, held_out, RunScope.of(c)).each
    assert (task.name, file.name) == ("eval", "eval/sums")
    assert (task.judges, file.judges) == (Judges("arithmetic"), Judges("math"))
    assert (task.config.samples, file.config.samples) == (2, 3)
    assert len(file.prompts) == 4 and task.prompts is held_out
    folders: list[Any] = [each.keep.__self__ for each in (task, file)]
    assert [f.folder for f in folders] == [
        tmp_path / "out" / "evaluations",
        tmp_path / "out" / "evaluations" / "sums",
    ]
    assert {f.limit for f in folders} == {1}


def test_a_process_that_does_not_write_keeps_no_answers(policy: Policy, tmp_path: Path) -> None:
    c = with_file(tmp_path)
    run = RunScope.of(c)
    run.folder.writes = False
    found = evaluators_of(c, policy, load_prompts(c, policy)[1], run)
    assert all(each.keep is keep_none for each in found.each)


def test_the_engine_makes_room_for_the_longest_prompt_and_response(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest of the file has 10 characters; the embedded task's are not counted."""
    c = with_file(tmp_path, "eval.sampling.max_completion_length=33")
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(c.rollouts, "reserve", lambda *lengths: asked.append(lengths))
    evaluators_of(c, policy, load_prompts(c, policy)[1], RunScope.of(c))
    assert asked == [(10, 33)]


def test_a_prompt_and_a_response_need_positions_in_the_model(
    policy: Policy, tmp_path: Path
) -> None:
    c = with_file(tmp_path, "eval.sampling.max_completion_length=100000")
    with pytest.raises(UserError, match="positions"):
        evaluators_of(c, policy, load_prompts(c, policy)[1], RunScope.of(c))


def test_the_tasks_own_evaluation_alone_is_compared_with_references(
    policy: Policy, tmp_path: Path
) -> None:
    c = with_file(tmp_path, "eval.against.responses=solution", "eval.problems=4")
    _, held_out = load_prompts(c, policy)
    task, file = evaluators_of(c, policy, held_out, RunScope.of(c)).each
    assert file.contest is None and task.contest is not None
    assert task.contest.reward == "arithmetic" and [*task.contest.rewards.rewards] == ["arithmetic"]
    solutions = {p.prompt_id: [p.columns["solution"]] for p in held_out}
    assert task.contest.responses == solutions


def test_preferences_that_are_all_too_long_leave_nothing_to_evaluate(policy: Policy) -> None:
    sums = ("task=preference", "task.path=pkg://rlkit/tasks/revised_sums.jsonl", "buffer=pairs")
    c = composed(*sums, "algorithm=online_dpo", "rollout.max_prompt_length=2")
    with pytest.raises(UserError, match=r"held-out preferences are longer than .*_length=2 or"):
        evaluators.held_out_pairs(c, policy)
    other = composed(*sums, "algorithm=online_dpo", "rollout.max_prompt_length=2", "reward=[exact]")
    found, told = evaluators.held_out_pairs(other, policy)
    assert found == [] and "are left out" in told[0]
