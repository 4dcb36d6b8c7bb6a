r"""Which words behind a number are a unit, and how two spellings of one are the same."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.units import is_unit, split_unit, unit_name


@pytest.mark.parametrize(
    "token", ["cm", "dollars", r"\text:m", r"\text:apples", r"\text:miles per hour"]
)
def test_units(token: str) -> None:
    assert is_unit([token])


@pytest.mark.parametrize(
    "token", ["m", "t", r"\text:thousand", r"\text:not cm", r"\text:x", "5", r"\text:a b c d e"]
)
def test_no_units(token: str) -> None:
    """A bare letter is a factor, and words that change a value are none."""
    assert not is_unit([token])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("centimeters", "cm"),
        (r"\text:Apples", r"\text:apple"),
        (r"\text:miles per hour", "mph"),
        (r"\text:miles per hour", r"\text:mi/h"),
        (r"\text:square meters", r"\text:sq metres"),
        ("inches", r"\text:inch"),
        ("usd", r"\text:dollars"),
    ],
)
def test_two_spellings_of_one_unit(one: str, other: str) -> None:
    assert unit_name(one) == unit_name(other)


def test_short_units_keep_their_case() -> None:
    assert [unit_name(rf"\text:{u}") for u in ("Pa", "Hz", "N")] == ["Pa", "Hz", "N"]


@pytest.mark.parametrize(
    ("tokens", "body", "unit"),
    [
        (["5", "cm"], ["5"], "cm"),
        (["5", "cm", "^", "2"], ["5"], "cm2"),
        (["5", r"\text:m", "^", "{", "3", "}"], ["5"], "m3"),
        ([r"\$", "5"], ["5"], "$"),
        (["-", r"\$", "5"], ["-", "5"], "$"),
        (["45", "^", r"\circ"], ["45"], "deg"),
        (["45", "^", "{", r"\circ", "}"], ["45"], "deg"),
        ([r"\sin", "45", "^", r"\circ"], [r"\sin", "45", "^", r"\circ"], ""),
        (["25", "^", r"\circ", "C"], ["25"], "degC"),
        (["5", "km", "/", "h"], ["5"], "h-1 km"),
        (["5", r"\text:m/s", "^", "2"], ["5"], "m s-2"),
        (["5", r"\text:m", "/", "s", "^", "{", "2", "}"], ["5"], "m s-2"),
        (["5", r"\text:m s", "^", "{", "-", "2", "}"], ["5"], "m s-2"),
        (["5", r"\text:kg", r"\cdot", "m"], ["5"], "kg m"),
        (["5", "cm", "s"], ["5", "cm", "s"], ""),
        (["5", r"\text:m", "t"], ["5", r"\text:m", "t"], ""),
        (["5", "km", "/", "h", "+", "1"], ["5", "km", "/", "h", "+", "1"], ""),
        (["2", "t"], ["2", "t"], ""),
        (["x", "^", "2"], ["x", "^", "2"], ""),
        ([], [], ""),
    ],
)
def test_a_unit_is_split_from_its_number(tokens: list[str], body: list[str], unit: str) -> None:
    assert split_unit(tokens) == (body, unit)
