"""The pull of a teacher: its values by hand, in a run, and the fields it may set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from rlkit.composition.compose import compose
from rlkit.composition.composition import Composition
from rlkit.composition.config_files import configs_folder
from rlkit.composition.hydra_groups import store_groups
from rlkit.errors import UserError
from rlkit.interfaces import Phase, Progress, RunContext
from rlkit.registry import build
from schedules.qdagger import QDagger
from tests.certain import FORM_AND_HALF
from tests.cli import SMALL, metrics, run
from tests.end_to_end.test_wrong_input import one_line


def at(step: int, score: float, metric: str = "eval/pass@1") -> Progress:
    return Progress(step=step, steps=100, rollouts=0, metrics={}, eval={metric: score})


def qdagger(**fields: Any) -> QDagger:
    schedule: QDagger = build("schedule", "qdagger", **fields)
    return schedule


@pytest.mark.parametrize(
    ("score", "expected"), [(0.0, 3.0), (0.2, 1.5), (0.3, 0.75), (0.4, 0.0), (0.9, 0.0)]
)
def test_the_pull_fades_as_the_score_comes_near_the_teachers(score: float, expected: float) -> None:
    """3 (1 - score / 0.4); a policy better than its teacher is not pushed away from it."""
    phase = qdagger(weight=3.0, teacher_score=0.4).phase(at(1, score))
    assert phase.name == "teacher" and not phase.events
    assert phase.values == {"anchor.beta": pytest.approx(expected)}


def test_after_decay_steps_the_policy_is_alone_whatever_its_score() -> None:
    """The metric need not even be there any more."""
    schedule = qdagger(decay_steps=3, field="anchor.floor")
    assert schedule.phase(at(3, 0.5)) == Phase(name="teacher", values={"anchor.floor": 0.05})
    assert schedule.phase(at(4, 0.5)) == Phase(name="alone", values={"anchor.floor": 0.0})
    assert schedule.phase(at(4, 0.5, "another")).name == "alone"


def test_without_decay_steps_there_is_no_teacher() -> None:
    assert qdagger(decay_steps=0).phase(at(1, 0.0)).values == {"anchor.beta": 0.0}


def test_another_metric_may_be_compared() -> None:
    schedule = qdagger(metric="eval/greedy", weight=1.0)
    assert schedule.phase(at(1, 0.25, "eval/greedy")).values == {"anchor.beta": 0.75}


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(UserError, match=r"no 'eval/pas@1'.*Did you mean 'eval/pass@1'"):
        qdagger(metric="eval/pas@1").phase(at(1, 0.5))


@pytest.mark.slow
def test_the_numbers_of_a_run_are_those_of_its_evaluations(tmp_path: Path) -> None:
    """Each step's beta is by the evaluation before it; after step 2 the penalty is gone. Step 1 is
    so large that the policy forgets the form."""
    chosen = ("schedule=qdagger", "schedule.weight=0.5", "schedule.decay_steps=2", "anchor=base")
    result = run(
        *SMALL,
        *("algorithm=grpo", *chosen, "anchor.beta=7", "train.steps=3", "eval.every=1"),
        *("train.learning_rate=1", "train.warmup_steps=0", FORM_AND_HALF, "output_dir=out"),
        cwd=tmp_path,
    )
    assert result.status == 0, result.err
    rows = metrics(tmp_path / "out")
    scores = [row["eval/pass@1"] for row in rows if "eval/pass@1" in row]
    steps = [row for row in rows if "policy/loss" in row]
    expected = [0.5 * (1 - scores[0]), 0.5 * (1 - scores[1]), 0.0]
    assert [row["schedule/anchor.beta"] for row in steps] == pytest.approx(expected)
    assert ["anchor/kl_base" in row for row in steps] == [beta > 0 for beta in expected]
    assert [row["schedule/phase"] for row in steps] == [0, 0, 1]
    assert scores[0] > 0.5 > scores[1], "the test needs evaluations that differ"


# ---- the fields a schedule sets are checked before the run

SCALAR = "{kind: linear, start: 0.1, end: 0.2}"
WRONG = [
    (["schedule.field=anchor.bta"], ["anchor.bta", "no such field", "'anchor.beta'"]),
    (["schedule.field=beta"], ["beta", "no such field", "'anchor.beta'"]),
    (["schedule.field=anchr.beta"], ["anchr.beta", "no such field", "'anchor.beta'"]),
    (["schedule.field=rollout.temperature"], ["rollout.temperature", "no such field"]),
    (["schedule.field=train.steps"], ["train.steps", "no such field"]),
    (["schedule.field=anchor.value_estimator"], ["anchor.value_estimator=0.1", "'k1'"]),
    (["schedule.field=train.learning_rate"], ["train.learning_rate=0.0", "greater than 0"]),
    (["schedule.field=buffer.window"], ["buffer.window=0", "greater than or equal to 1"]),
    (
        ["schedule.field=buffer.replay_fraction", "schedule.weight=1.5"],
        ["schedule sets buffer.replay_fraction", "=1.5", "less than 1"],
    ),
    ([f"anchor.beta={SCALAR}"], ["anchor.beta", "scalar schedule", "choose one"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=lambda x: " ".join(x)[:50])
def test_a_field_that_cannot_be_set_is_one_line(
    arguments: list[str], said: list[str], tmp_path: Path
) -> None:
    given = ["algorithm=remix", "schedule=qdagger", *arguments, "output_dir=out"]
    result = run(*given, cwd=tmp_path)
    assert result.status == 2, result.err + result.out
    line = one_line(result.err)
    for word in said:
        assert word in line, line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["loss=m2po", "schedule.field=loss.m2_threshold"],
        ["schedule.field=buffer.replay_fraction", "schedule.weight=0.9"],
        ["schedule.field=anchor.start", "schedule.weight=10.4"],
        ["correction=[erc_mining]", "schedule.field=correction.erc_mining.m"],
    ],
    ids=lambda x: " ".join(x)[:50],
)
def test_a_field_of_any_part_may_be_set(arguments: list[str], tmp_path: Path) -> None:
    """A whole number is rounded to, as anchor.start."""
    given = ["algorithm=remix", "schedule=qdagger", *arguments, "dry_run=true"]
    result = run(*given, cwd=tmp_path)
    assert result.status == 0, result.err


def composed(*overrides: str) -> Composition:
    store_groups()
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        raw: Any = OmegaConf.to_container(
            hydra_compose("config", overrides=["output_dir=out", *overrides]), resolve=True
        )
    return compose(raw)


@pytest.mark.parametrize(("schedule", "read"), [("qdagger", True), ("never", False)])
def test_an_anchor_keeps_its_copies_where_a_schedule_may_raise_beta(
    schedule: str, read: bool
) -> None:
    """With beta = 0 and a loss that reads no reference, only the schedule can ask for one."""
    overrides = ("algorithm=grpo", "anchor=previous", "anchor.beta=0", f"schedule={schedule}")
    whole = composed(*overrides)
    anchor: Any = whole.parts.anchor
    anchor.open(RunContext(read_by_loss=whole.read_by_loss))
    assert anchor.is_read("previous") == read
