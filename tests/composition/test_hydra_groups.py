"""Overrides before Hydra sees them: parts by import path, and what is refused early."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.composition.hydra_groups import check_override, register_user_parts
from rlkit.errors import UserError
from rlkit.interfaces import PartConfig, Phase, Progress, ReincarnationSchedule
from rlkit.registry import names, register
from tests.compositions import raw_of

OWN = """
from rlkit.registry import register
from buffers.fifo import Fifo


@register("buffer", "{name}")
class Own(Fifo):
    pass


def short(completions, **columns):
    return [0.0] * len(completions)
"""


@pytest.fixture(autouse=True)
def _own(own_registry: None) -> None:
    """Parts that a test registers are gone after it."""


def own(folder: Path, name: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(OWN.format(name=name))
    return path


def test_a_part_by_import_path_is_chosen_by_its_name_and_joins_the_plugins(tmp_path: Path) -> None:
    path = own(tmp_path, "own_group_a")
    found = register_user_parts(
        ["train.steps=3", f"buffer={path}:Own", f"reward=[exact,{path}:short]"]
    )
    assert found == [
        "train.steps=3",
        "buffer='own_group_a'",
        "reward=['exact','short']",
        f"plugins=['{path}']",
    ]
    assert "own_group_a" in names("buffer") and "short" in names("reward")


def test_a_plugin_is_known_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a command in another folder finds it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text("def mine(completions):\n    return [1.0]\n")
    found = register_user_parts(["reward=[./beside.py:mine]", "plugins=[beside.py]"])
    assert found == ["reward=['mine']", f"plugins=['{tmp_path.resolve() / 'beside.py'}']"]


def test_plugins_are_imported_once_and_named_once(tmp_path: Path) -> None:
    path = own(tmp_path, "own_group_b")
    found = register_user_parts([f"plugins=[{path},'{path}']", "buffer=own_group_b"])
    assert found == ["buffer=own_group_b", f"plugins=['{path}']"]
    assert "own_group_b" in names("buffer")


def test_other_overrides_pass_as_they_are() -> None:
    given = ["buffer=fifo", "~correction", "-m", "--cfg=job", "a.b=c:d"]
    assert register_user_parts(given) == given


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--steps=3", "there is no option --steps"),
        ("=3", "is not an override: write key=value"),
        ("~loss", "no run is without loss"),
        ("~train", "no run is without train"),
        ("train=3", "train is a section, set its keys, such as train.steps=..."),
        ("stages=3", "write a list, such as stages="),
        ("sweep=x", "sweep is not a setting of a run"),
        ("reward=null", r"write reward=\[<name>\], or reward=\[\] for none"),
        ("loss=null", "choose exactly one loss, as loss=<name>"),
        ("loss=[ppo]", "choose exactly one loss"),
        ("loss.name=ppo", "choose exactly one loss"),
        ("loss=./pl/own.py", r"which part of the file: write loss=./pl/own.py:<name>, with"),
        ("loss='own.py'", r"write loss=own.py:<name>, with"),
        ("buffer=pl/own", r"write buffer=pl/own:<name>, with"),
        ("reward=[exact,./own.py]", r"write reward=\[./own.py:<name>\], with"),
        ("+environment=./own.py", r"write environment=./own.py:<name>, with"),
        ("algorithm=3", "choose exactly one algorithm"),
    ],
)
def test_what_hydra_would_tell_badly_is_told_here(argument: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_override(argument)


@pytest.mark.parametrize(
    "argument",
    [
        *("loss=ppo", "reward=[]", "~correction", "train={steps: 3}", "--cfg=job", "train.steps=3"),
        *("loss=./own.py:Own", "reward=[exact,./pl/own.py:short]", "plugins=[./own.py]"),
        *("task.path=./data/a.py", "buffer={path: a/b.py}"),
    ],
)
def test_what_is_right_passes(argument: str) -> None:
    check_override(argument)


def test_every_registered_part_is_an_option_with_its_defaults() -> None:
    raw = raw_of("buffer=fifo", "correction=[tis]")
    assert raw["buffer"]["name"] == "fifo" and "window" in raw["buffer"]
    assert set(raw["correction"]) == {"tis"}


def own_schedule(default: int) -> None:
    """Register a schedule with a setting."""

    class Config(PartConfig):
        size: int = default

    @register("schedule", "own_size")
    class Own(ReincarnationSchedule[Config]):
        def phase(self, progress: Progress) -> Phase:
            return Phase(name="own")


def test_a_part_registered_anew_takes_the_place_of_the_one_before() -> None:
    """What is put into Hydra's store stays there; the new part's defaults are others."""
    for default in (1, 2):
        own_schedule(default)
        assert raw_of("schedule=own_size")["schedule"]["size"] == default


@pytest.mark.parametrize("others", [[], ["+experiment=gigpo_frozen_lake"]])
def test_a_run_may_say_that_it_has_no_environment(others: list[str]) -> None:
    """Also one that an experiment chose; Hydra takes no null."""
    words = register_user_parts([*others, "environment=null"])
    assert not raw_of(*words).get("environment")


def test_a_name_stands_once_in_a_list() -> None:
    for argument in ("reward=[math,math]", "correction=[tis, 'tis']", "tracker=[wandb,a,wandb]"):
        with pytest.raises(UserError, match="twice; name each"):
            check_override(argument)
    check_override("reward=[math,exact],[exact,math,overlong]")
