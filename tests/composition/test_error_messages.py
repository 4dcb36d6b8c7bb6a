"""Keys that nothing reads, and Hydra's errors, on one line."""

from __future__ import annotations

import pytest

from rlkit.composition.catalog_file import catalog
from rlkit.composition.error_messages import (
    MAPPED,
    chosen_part,
    known_keys,
    one_line,
    unknown_key,
)
from rlkit.composition.hydra_groups import store_groups
from tests.compositions import raw_of


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("train.stepz", "unknown key train.stepz. Did you mean 'train.steps'?"),
        ("steps", "unknown key steps. Did you mean 'train.steps'?"),
        ("trian.steps", "unknown key trian.steps. Did you mean 'train.steps'?"),
        ("experiment", "experiment needs a plus: +experiment=<name>"),
        ("correction.tis.level", "correction.tis.level needs its part: correction=[tis]"),
        ("buffer.windoww", "unknown key buffer.windoww. Did you mean 'buffer.window'?"),
        ("buffer.window", "this run's buffer has no 'window': it belongs"),
        (
            "environment.time_limit",
            "this run has no environment: 'time_limit' belongs to environment=",
        ),
        ("loss.epsilon", "this run's loss has no 'epsilon': it belongs to loss="),
        ("train.lr", "unknown key train.lr; here it is train.learning_rate"),
        ("kl_coef", "unknown key kl_coef; here it is anchor=base and anchor.beta"),
        (
            "reward.arithmetic.weight",
            "unknown key reward.arithmetic.weight: there is no reward called 'arithmetic'. Known: ",
        ),
        ("qqqq", "unknown key qqqq. Known: "),
        ("nope", "unknown key nope. Known: "),  # not "Did you mean 'anchor.dtype'?"
        ("learning_rat", "unknown key learning_rat. Did you mean 'train.learning_rate'? Known: "),
    ],
)
def test_an_unknown_key_is_told_what_was_meant(key: str, said: str) -> None:
    found = unknown_key(key)
    assert found.startswith(said) and "\n" not in found


def test_a_setting_of_another_part_that_another_library_has_is_told_what_it_is_here() -> None:
    assert unknown_key("loss.epsilon").endswith(
        "epsilon is TRL's; here it is loss.clip_low (docs/migrating.md)"
    )
    assert unknown_key("reward.arithmetic.weight").endswith("a task's own reward has no settings")
    store_groups()
    chosen = unknown_key("environment.time_limit", ["environment=calculator"])
    assert chosen.startswith("this run's environment has no 'time_limit'")


def test_a_setting_of_another_part_is_told_the_nearest_of_the_chosen_one_first() -> None:
    store_groups()
    assert unknown_key("task.prompt", ["task=jsonl", "task.prompt=question"]) == (
        "this run's task has no 'prompt'. Did you mean 'task.prompt_column'? "
        "'prompt' belongs to task=environment"
    )


def test_of_the_chosen_part_only_its_own_settings_are_listed() -> None:
    """By name or by the composition that chooses it."""
    store_groups()
    for arguments, loss in ((["loss=sapo"], "sapo"), (["algorithm=sapo", "seed=1"], "sapo")):
        found = unknown_key("loss.temperatur", arguments)
        assert found.startswith(f"unknown key loss.temperatur: loss={loss} has no such setting.")
        listed = found.partition("Known: ")[2].split(", ")
        settings = {setting.name for setting in catalog().parts["loss"][loss].settings}
        assert {*listed} == settings
    assert chosen_part("loss", ["algorithm=nothing"]) is None and chosen_part("loss", []) is None
    assert "and " in unknown_key("loss.temperatur", ["algorithm=nothing"])


@pytest.mark.parametrize(
    ("override", "package"),
    [
        ("hydra/launcher=joblib", "hydra-joblib-launcher"),
        ("hydra/launcher=submitit_slurm", "hydra-submitit-launcher"),
        ("hydra/sweeper=optuna", "hydra-optuna-sweeper"),
    ],
)
def test_a_plugin_of_hydra_that_is_missing_is_named_as_its_package(
    override: str, package: str
) -> None:
    with pytest.raises(MAPPED) as caught:
        raw_of(override)
    assert f"{override} is not installed: pip install {package}, " in one_line(caught.value)


def test_keys_are_those_of_the_run_of_parts_and_of_groups() -> None:
    keys = known_keys()
    assert {"train.steps", "model.lora.r", "anchor.beta", "algorithm"} <= {*keys}
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.steps", "'train.steps' is not an override: write train.steps=<value>"),
        ("train.steps=[1", "train.steps=[1 cannot be read: close every bracket"),
        ("algorithm=nothing", "there is no algorithm called 'nothing'."),
        ("+experiment=nothing", "there is no experiment called 'nothing'."),
        ("+loss=ppo", "loss is already chosen: write loss=ppo, without +"),
        ("train.stepz=3", "unknown key train.stepz."),
        ("nothing=3", "unknown key nothing."),
    ],
)
def test_an_error_of_hydra_is_one_line(override: str, said: str) -> None:
    with pytest.raises(MAPPED) as caught:
        raw_of(override)
    found = one_line(caught.value)
    assert found.startswith(said) and "\n" not in found


def test_any_other_error_is_its_first_line() -> None:
    assert one_line(ValueError("\n first \nsecond")) == "first"
    assert one_line(ValueError()) == "ValueError"
