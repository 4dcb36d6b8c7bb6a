"""Scalar schedules: their shapes by hand, their errors, and a run that follows one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.config.scalars import SHAPES, scalar_of
from rlkit.errors import UserError
from tests.cli import SMALL, metrics, run, without_times

RAMP = {"start": 1.0, "end": 3.0, "steps": 4}


@pytest.mark.parametrize(
    ("node", "values"),
    [
        ({"kind": "constant", "start": 2.0}, [2, 2, 2, 2, 2, 2, 2]),
        ({"kind": "linear", **RAMP}, [1, 1.5, 2, 2.5, 3, 3, 3]),
        ({"kind": "linear", **RAMP, "delay": 2}, [1, 1, 1, 1.5, 2, 2.5, 3]),
        ({"kind": "cosine", **RAMP}, [1, 2 - 2**-0.5, 2, 2 + 2**-0.5, 3, 3, 3]),
        (
            {"kind": "staircase", "start": 2.0, "delay": 2, "interval": 2, "floor": 0.85},
            [2, 2, 1.8, 1.8, 1.7, 1.7, 1.7],
        ),
        ({"kind": "piecewise", "points": [[2, 1.0], [4, 3.0], [5, 0.0]]}, [1, 1, 2, 3, 0, 0, 0]),
    ],
)
def test_the_first_seven_steps(node: dict[str, Any], values: list[float]) -> None:
    scalar = scalar_of("x", node)
    assert [scalar.value(step, {}) for step in range(1, 8)] == pytest.approx(values)
    low, high = min(scalar.extremes()), max(scalar.extremes())
    assert all(low <= value <= high for value in values)


def test_a_threshold_switches_on_its_metric_and_refuses_an_unknown_one() -> None:
    scalar = scalar_of("x", {"kind": "threshold", "threshold": 0.5, "below": 1, "above": 2})
    assert scalar.value(1, {}) == 1
    assert [scalar.value(3, {"eval/pass@1": x}) for x in (0.4, 0.5, 0.6)] == [1, 2, 2]
    with pytest.raises(UserError, match=r"no metric 'eval/pass@1'. Did you mean 'eval/pass@k'"):
        scalar.value(2, {"eval/pass@k": 0.4})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"kind": "cosin"},
            "anchor.beta.kind=cosin is not a scalar schedule. Did you mean 'cosine'?",
        ),
        ({"kind": "linear", "stop": 1}, "unknown key anchor.beta.stop"),
        ({"kind": "linear", "steps": 0}, "anchor.beta.steps=0 is not valid"),
        ({"kind": "piecewise", "points": [[3, 1], [2, 1]]}, "increasing steps"),
    ],
)
def test_a_wrong_schedule_is_one_line(node: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        scalar_of("anchor.beta", node)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", SHAPES)
def test_every_shape_has_defaults_and_documentation(kind: str) -> None:
    scalar = SHAPES[kind]()
    assert scalar.model_dump()["kind"] == kind and scalar.extremes()
    assert all(f.description for name, f in SHAPES[kind].model_fields.items() if name != "kind")


def test_the_ends_of_its_range_must_be_legal_values_of_the_field(tmp_path: Path) -> None:
    end = "anchor.beta={kind: linear, start: 0.1, end: -1, steps: 5}"
    result = run(end, "dry_run=true", cwd=tmp_path)
    assert result.status == 2
    assert "anchor.beta=-1.0 is not valid" in result.err
    rate = "train.learning_rate={kind: linear, start: 0, end: 1, steps: 5}"
    assert "train.learning_rate=0.0 is not valid" in run(rate, "dry_run=true", cwd=tmp_path).err
    place = "rollout.temperature={kind: linear, start: 1, end: 2}"
    assert run(place, "dry_run=true", cwd=tmp_path).status == 2


@pytest.mark.slow
def test_a_run_follows_logs_and_resumes_its_schedules(tmp_path: Path) -> None:
    common = (
        *("algorithm=remix", "train.warmup_steps=0", "train.lr_scheduler_type=constant"),
        "anchor.beta={kind: linear, start: 0.0, end: 0.3, steps: 3}",
        "buffer.window={kind: piecewise, points: [[1, 3], [3, 1]]}",
        "train.learning_rate={kind: staircase, start: 0.001, decrement: 0.5, floor: 0.2, delay: 1}",
        "checkpoint.every=1",
    )
    whole = run(*SMALL, *common, "train.steps=4", "output_dir=whole", cwd=tmp_path)
    assert whole.status == 0, whole.err
    assert "anchor.beta follows a schedule: linear (start=0.0, end=0.3, steps=3" in whole.out
    rows = [r for r in metrics(tmp_path / "whole") if "policy/loss" in r]
    assert [r["schedule/anchor.beta"] for r in rows] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [r["schedule/buffer.window"] for r in rows] == [3, 2, 1, 1]
    assert [r["policy/lr"] for r in rows] == pytest.approx([1e-3, 5e-4, 5e-4, 5e-4])
    assert "anchor/kl" not in rows[0] and rows[1]["anchor/kl"] >= 0
    part = run(*SMALL, *common, "train.steps=2", "output_dir=part", cwd=tmp_path)
    again = run(*SMALL, *common, "train.steps=4", "resume=auto", "output_dir=part", cwd=tmp_path)
    assert part.status == again.status == 0, again.err
    both = [
        [r for r in without_times(metrics(tmp_path / name)) if "policy/loss" in r]
        for name in ("whole", "part")
    ]
    assert both[0] == both[1]
