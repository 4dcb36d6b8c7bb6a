"""What is done to the arguments before Hydra reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from rlkit.composition.arguments import flags_first, repeated, unpasted
from rlkit.errors import UserError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a=1 -m b=2", "-m a=1 b=2"),
        ("a=1 --config-dir x b=2 --cfg job", "--config-dir x --cfg job a=1 b=2"),
        ("a=1 --config-dir=x", "--config-dir=x a=1"),
        ("--info a=1", "a=1 --info"),
        ("--info config a=1", "a=1 --info config"),
        ("a=-1 ~b", "a=-1 ~b"),
        ("a=1 -cd", "-cd a=1"),
    ],
)
def test_options_stand_before_settings(given: str, expected: str) -> None:
    assert flags_first(given.split()) == expected.split()


def test_a_key_given_more_than_once_has_a_line() -> None:
    given = ["a.b=1", "-m", "c=1", "+a.b=2", "~d", "~d", "a.b=x=y"]
    assert list(repeated(given)) == ["a.b is given 3 times; the last counts: a.b=x=y"]


@pytest.mark.parametrize("between", ["=", ": ", " = "])
def test_stages_from_a_file_become_an_override(between: str) -> None:
    text = """[{steps: 2, overrides: [algorithm=sft, "loss.a='b'", 'reward=[x]']}, {steps: 3}]"""
    (parsed,) = OverridesParser.create().parse_overrides([unpasted(f"stages{between}{text}")])
    value: Any = parsed.value()
    assert parsed.key_or_group == "stages" and [s["steps"] for s in value] == [2, 3]
    assert value[0]["overrides"] == ["algorithm=sft", "loss.a='b'", "reward=[x]"]


@pytest.mark.parametrize(
    "argument", ["a=1", "stages=3", "stages=[{", "+x=[a]", "stages=[{steps:2,overrides:[a=b]}]"]
)
def test_other_arguments_stay_as_they_are(argument: str) -> None:
    assert unpasted(argument) == argument


@pytest.mark.parametrize("given", [{"train.steps": 3}, 3, None])
def test_an_override_that_is_no_text_is_told_how_it_is_written(given: Any) -> None:
    with pytest.raises(UserError, match=r'not an override: write text, such as "train.steps=3"'):
        unpasted(given)
