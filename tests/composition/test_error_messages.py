"""Keys that nothing reads, and Hydra's errors, on one line."""

from __future__ import annotations

import pytest

from rlkit.composition.error_messages import MAPPED, known_keys, one_line, unknown_key
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
        ("qqqq", "unknown key qqqq. Known: "),
    ],
)
def test_an_unknown_key_is_told_what_was_meant(key: str, said: str) -> None:
    found = unknown_key(key)
    assert found.startswith(said) and "\n" not in found


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
