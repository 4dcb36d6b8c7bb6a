"""The teacher: which model it is, that it stays, and what a checkpoint keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anchors.teacher import Teacher, TeacherConfig
from rlkit.errors import UserError
from rlkit.interfaces import FixedModel, ModelSource, RunContext
from tests.anchors.running import CountedPolicy, Run, resumed


class Model(CountedPolicy):
    """A model of its own, known by its number."""

    number: Any

    def __init__(self, number: int) -> None:
        super().__init__(float(number))


def opened(anchor: Teacher, number: int = 7) -> list[ModelSource]:
    """Open it with a model; what was asked for."""
    asked: list[ModelSource] = []

    def model(source: ModelSource) -> FixedModel | None:
        asked.append(source)
        return None if source.path is None else Model(number)

    anchor.open(RunContext(open_model=model))
    return asked


def test_the_teacher_is_the_named_model_from_first_to_last() -> None:
    anchor = Teacher(TeacherConfig(path="big", dtype="bfloat16", device="cpu", beta=0.1))
    expected = ModelSource(path="big", setting="anchor.path", dtype="bfloat16", device="cpu")
    assert opened(anchor) == [expected]
    run = Run(anchor)
    assert run.one(2, "teacher") == [7, 7]
    run.rebirth()
    assert run.one(2, "teacher") == [7, 7] and run.policy.copies == 0
    assert anchor.number("teacher") == 7


def test_without_a_path_it_is_the_policy_training_starts_from() -> None:
    run = Run(Teacher(TeacherConfig(beta=0.1)))
    assert run.one(2, "teacher") == [0, 0]
    run.rebirth()
    assert run.one(1, "teacher") == [0]
    assert resumed(run).one(2, "teacher") == [0, 0]
    assert run.anchor.number("teacher") == 0


def test_a_checkpoint_holds_no_weights_of_a_named_model_and_takes_the_next_one() -> None:
    """A run that goes on with another teacher has its number, by which cached log-probs go."""
    anchor = Teacher(TeacherConfig(path="big", beta=0.1))
    opened(anchor)
    run = Run(anchor)
    run.anchor.factor = 2.0
    state = run.anchor.state_dict()
    assert state == {"factor": 2.0, "first": None}
    again = Teacher(TeacherConfig(path="bigger", beta=0.1))
    opened(again, 8)
    again.restore(CountedPolicy(), state)
    assert again.factor == 2.0 and again.number("teacher") == 8
    late = Teacher(TeacherConfig(path="big", beta=0.1))
    opened(late)
    late.restore(CountedPolicy(), {"factor": 1.0, "first": {"number": torch.tensor(3.0)}})
    assert late.reference("teacher") is late.loaded


def test_a_run_that_had_a_teacher_does_not_go_on_without() -> None:
    """Nothing would take its place: all advantages would be 0."""
    anchor = Teacher(TeacherConfig(path="big", beta=0.1))
    opened(anchor)
    state = Run(anchor).anchor.state_dict()
    without = Teacher(TeacherConfig(beta=0.1))
    opened(without)
    with pytest.raises(UserError, match=r"trained with a teacher, and anchor\.path=null"):
        without.restore(CountedPolicy(), state)


def test_it_holds_one_reference_and_no_penalty_by_default() -> None:
    anchor = Teacher()
    assert anchor.references(1) == () and dict(anchor.weights(1)) == {"teacher": 1.0}
    with pytest.raises(KeyError):
        anchor.reference("base")


def test_a_named_model_needs_a_run() -> None:
    with pytest.raises(UserError, match="big is loaded when a run opens the part"):
        Teacher(TeacherConfig(path="big")).open(RunContext())
