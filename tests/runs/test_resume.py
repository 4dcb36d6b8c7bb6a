"""What may differ between a checkpoint's configuration and that of the run that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.runs.resume import CONFIG, check_config, check_data, check_sources, save_config

OLD = {"seed": 0, "loss": {"name": "one", "cap": 2.0}, "train": {"steps": 3}}
DEFAULTS = {"loss": {"cap": 1.0, "newer": 0.5}, "train": {"steps": 200, "warmup_steps": 0}}


def check(tmp_path: Path, new: dict[str, Any]) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(OLD))
    check_config(tmp_path, new, DEFAULTS)


def test_a_key_that_the_checkpoint_lacks_counts_as_its_default(tmp_path: Path) -> None:
    check(tmp_path, {**OLD, "loss": {**OLD["loss"], "newer": 0.5}})  # type: ignore[dict-item]
    with pytest.raises(UserError, match=r"loss.newer 0.5 -> 0.7"):
        check(tmp_path, {**OLD, "loss": {**OLD["loss"], "newer": 0.7}})  # type: ignore[dict-item]


def test_a_key_that_it_has_counts_as_it_was(tmp_path: Path) -> None:
    """Not as the default: a run with cap=2 does not go on with the default of 1."""
    with pytest.raises(UserError, match=r"loss.cap 2.0 -> 1.0.*resume_force=\[loss.cap\]"):
        check(tmp_path, {**OLD, "loss": {"name": "one", "cap": 1.0}})


def test_a_schedule_that_looks_ahead_is_why_a_run_cannot_be_extended(tmp_path: Path) -> None:
    longer = {"steps": 5, "lr_scheduler_type": "linear"}
    with pytest.raises(UserError, match=r"train.steps 3 -> 5.*falls towards the last step"):
        check(tmp_path, {**OLD, "train": longer, "resume_force": ["train.lr_scheduler_type"]})
    constant = {**OLD, "train": {"steps": 5, "lr_scheduler_type": "constant"}, "stages": [1]}
    with pytest.raises(UserError, match=r"train.steps 3 -> 5") as caught:
        check(tmp_path, {**constant, "resume_force": ["train.lr_scheduler_type", "stages"]})
    assert "falls towards" not in str(caught.value)


def test_what_is_allowed_to_change_must_be_a_key_or_a_section_of_the_run(tmp_path: Path) -> None:
    for known in ("loss", "loss.cap", "task.data", "source", "source.mine"):
        check(tmp_path, {**OLD, "resume_force": [known]})
    said = (
        r"resume_force names train.stepz, which is no key of this run. Did you mean 'train.steps'"
    )
    with pytest.raises(UserError, match=said):
        check(tmp_path, {**OLD, "resume_force": ["train.stepz"]})


def test_a_part_that_it_lacks_is_a_change_whatever_its_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reward.math.name unset -> \"math\""):
        check(tmp_path, {**OLD, "reward": {"math": {"name": "math"}}})


@pytest.mark.parametrize("force", [[], ["loss"], ["loss.name"]])
def test_a_part_with_state_is_not_replaced_by_force(force: list[str], tmp_path: Path) -> None:
    """Its state would not be there; a part without any may be replaced."""
    (tmp_path / CONFIG).write_text(json.dumps(OLD))
    new = {**OLD, "loss": {"name": "two", "cap": 2.0}, "resume_force": force}
    said = rf'the state of other parts \(loss.name "one" -> "two"\).*model.name={tmp_path} output'
    with pytest.raises(UserError, match=said):
        check_config(tmp_path, new, DEFAULTS, ["anchor", "loss"])
    added = {**OLD, "correction": {"own": {"name": "own"}}, "resume_force": ["correction"]}
    with pytest.raises(UserError, match=r'correction.own.name unset -> "own"'):
        check_config(tmp_path, added, DEFAULTS, ["correction.own"])
    check_config(tmp_path, added, DEFAULTS, ["loss"])
    if force:
        check_config(tmp_path, new, DEFAULTS, ["anchor"])


def test_other_data_is_refused_unless_a_key_of_the_task_may_change() -> None:
    old, edited = {"problems": 3, "sha256": "a"}, {"problems": 3, "sha256": "b"}
    check_data(Path("c"), old, dict(old), ())
    with pytest.raises(UserError, match=r"c was made with other data.*\(others, or in another"):
        check_data(Path("c"), old, edited, ("tasks", "loss.cap"))
    with pytest.raises(UserError, match=r"\(3 -> 4\).*resume_force=\[task.data\]"):
        check_data(Path("c"), old, {"problems": 4, "sha256": "a"}, ())
    for allowed in ("task", "task.data", "task.path"):
        check_data(Path("c"), old, edited, (allowed,))


def test_other_code_of_the_user_is_refused_by_module_unless_it_is_allowed(tmp_path: Path) -> None:
    save_config(tmp_path, {}, {"mine": "a", "pkg.losses": "b", "gone": "c"})
    check_sources(tmp_path, {"mine": "a", "pkg.losses": "b", "new": "d"}, ())
    changed = {"mine": "x", "pkg.losses": "y"}
    with pytest.raises(UserError, match=r"resume_force=\[source\.mine,source\.pkg\.losses\]"):
        check_sources(tmp_path, changed, ())
    with pytest.raises(UserError, match=r"other code: source\.mine changed since"):
        check_sources(tmp_path, changed, ("source.pkg",))
    check_sources(tmp_path, changed, ("source",))


def test_a_checkpoint_that_knows_no_code_is_continued_with_any(tmp_path: Path) -> None:
    check_sources(tmp_path, {"mine": "a"}, ())


def test_speed_and_places_of_services_may_change_but_not_what_an_environment_allows(
    tmp_path: Path,
) -> None:
    check(tmp_path, {**OLD, "reward": {"judge": {"tries": 3}}, "task": {"timeout": 9.0}})
    for part in ({"environment": {"tries": 3}}, {"environment": {"of": {"a": {"time_limit": 1}}}}):
        with pytest.raises(UserError, match=r"made with another configuration: environment\."):
            check(tmp_path, {**OLD, **part})
