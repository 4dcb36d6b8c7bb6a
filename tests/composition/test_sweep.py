"""Jobs of a multirun: which they are, and that the first wrong one stops all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rlkit.composition import sweep
from rlkit.composition.hydra_groups import store_groups
from rlkit.composition.sweep import check_jobs, is_multirun, jobs
from rlkit.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-m seed=1,2", True),
        ("--multirun seed=1,2", True),
        ("hydra.mode=MULTIRUN seed=1,2", True),
        ("seed=1", False),
        ("-m --cfg job seed=1", False),
        ("-m hydra/sweeper=optuna seed=1", False),
        ("-m hydra/sweeper=basic seed=1", True),
        ("--config-dir -m", True),
    ],
)
def test_a_multirun_is_known_by_its_arguments(arguments: str, expected: bool) -> None:
    assert is_multirun(arguments.split()) is expected


def test_jobs_are_those_of_hydra() -> None:
    found = jobs(["-m", "a=1,2", "b=x", "c=3,4"])
    assert found == [[f"a={a}", "b=x", f"c={c}"] for a in (1, 2) for c in (3, 4)]


def test_every_job_is_composed_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = sweep._check

    def noted(job: Sequence[str]) -> None:
        seen.append(list(job))
        real(job)

    monkeypatch.setattr(sweep, "_check", noted)
    store_groups()
    check_jobs(["-m", "algorithm=grpo", "seed=0,1"])
    assert seen == [["algorithm=grpo", "seed=0"], ["algorithm=grpo", "seed=1"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "job", "said"),
    [
        ("anchor.beta=0.1,-1", "anchor.beta=-1", "anchor.beta=-1 is not valid"),
        ("loss.clip_low=0.1,x", "loss.clip_low=x", "loss.clip_low=x is not valid"),
        ("algorithm=grpo,nothing", "algorithm=nothing", "there is no algorithm called 'nothing'"),
        (
            "stages=[{steps: 1}],[{steps: 1, overrides: ['seed=-2']}]",
            "stages=[{steps:1,overrides:['seed=-2']}]",
            "seed=-2 is not valid",
        ),
    ],
)
def test_a_wrong_job_is_named_with_what_is_its_own(
    wrong: str, job: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store_groups()
    with pytest.raises(UserError) as caught:
        check_jobs(["-m", "buffer=on_policy", wrong])
    start = f"job 2 of 2 ({job}) cannot run, so none was started: "
    assert str(caught.value).startswith(start), caught.value
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_brackets_around_what_was_to_be_swept_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store_groups()
    with pytest.raises(UserError) as caught:
        check_jobs(["-m", "train.learning_rate=[1e-4,1e-3]"])
    said = str(caught.value)
    assert said.startswith("job 1 of 1 cannot run, so none was started: train.learning_rate=")
    assert said.endswith("; a sweep over values is key=a,b without brackets")


def test_brackets_of_another_setting_are_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store_groups()
    with pytest.raises(UserError, match="^(?!.*without brackets)"):
        check_jobs(["-m", "train.learning_rate=-1", "reward=[exact]"])
