"""pydantic's errors in the user's words: the key, the value as written, what it must be."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from rlkit.config.run import RunConfig
from rlkit.config.validation import as_written, how_to_list, validation_message, with_value
from rlkit.errors import UserError
from rlkit.interfaces import PartConfig


class Inner(PartConfig):
    depth: Annotated[int, Field(ge=0)] = 0
    """How deep."""


class Config(PartConfig):
    count: Annotated[int, Field(ge=1)] = 1
    """A number."""
    rate: float = 0.5
    """Another."""
    limit: Annotated[float, Field(gt=0)] | None = None
    """A bound or nothing."""
    kind: Literal["a", "b"] = "a"
    """A choice."""
    name: Annotated[str, Field(pattern="^x")] = "x"
    """a word with x in front; like "xy"."""
    pair: Annotated[tuple[int, ...], Field(max_length=2)] = ()
    """Two at most."""
    two: tuple[int, int] = (0, 0)
    """Exactly two."""
    flag: bool = False
    """A switch."""
    settings: dict[str, int] = Field(default_factory=dict)
    """Any."""
    inner: Inner = Inner()

    @model_validator(mode="after")
    def _own(self) -> Config:
        if self.count == 13:
            raise ValueError("count=13 brings bad luck; take 14")
        if self.count == 14:
            raise ValueError("there is no fourteenth")
        return self


def message(settings: dict[str, Any], prefix: str = "loss.") -> str:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(settings)
    return validation_message(caught.value, Config, prefix)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 0}, "loss.count=0 is not valid: it must be greater than or equal to 1"),
        ({"count": "many"}, "loss.count=many is not valid: it must be an integer"),
        ({"count": 1.5}, "loss.count=1.5 is not valid: it must be an integer"),
        ({"rate": "high"}, "loss.rate=high is not valid: it must be a number"),
        (
            {"rate": {"kind": "linear"}},
            "loss.rate={kind:linear} is not valid: it must be a number, "
            "a schedule is not possible here",
        ),
        ({"rate": {"x": 1}}, "loss.rate={x:1} is not valid: it must be a number"),
        ({"limit": -1}, "loss.limit=-1 is not valid: it must be greater than 0"),
        ({"kind": "c"}, "loss.kind=c is not valid: it must be 'a' or 'b'"),
        ({"name": "y"}, "loss.name=y is not valid: it must be a word with x in front"),
        ({"name": 3}, "loss.name=3 is not valid: it must be text"),
        ({"pair": [1, 2, 3]}, "loss.pair=[1,2,3] is not valid: it must be a list of 2 values"),
        ({"pair": 1}, "loss.pair=1 is not valid: it must be a list, such as [a,b]"),
        ({"two": [1]}, "loss.two=[1] is not valid: it has too few values"),
        ({"flag": "perhaps"}, "loss.flag=perhaps is not valid: it must be true or false"),
        ({"settings": 1}, "loss.settings=1 is not valid: it must be keys and values, such as"),
        ({"inner": 1}, "loss.inner=1 is not valid: it must be keys and values, such as {a:1}"),
        ({"inner": {"depth": -1}}, "loss.inner.depth=-1 is not valid: it must be greater than"),
        ({"cuont": 1}, "unknown key loss.cuont. Did you mean 'count'? Known: count, rate,"),
        ({"depth": 1}, "unknown key loss.depth. Did you mean 'inner.depth'?"),
        ({"inner": {"detph": 1}}, "unknown key loss.inner.detph. Did you mean 'depth'? Known: d"),
        ({"count": 13}, "loss.count=13 brings bad luck; take 14"),
        ({"count": 14}, "loss: there is no fourteenth"),
    ],
)
def test_a_wrong_value_is_one_line(settings: dict[str, Any], said: str) -> None:
    found = message(settings)
    assert found.startswith(said) and "\n" not in found


def test_without_a_section_the_key_stands_alone() -> None:
    assert message({"count": 0}, "").startswith("count=0 is not valid")
    assert message({"count": 14}, "") == "there is no fourteenth"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate({})
    assert validation_message(caught.value, RunConfig) == "output_dir is missing"


def test_of_several_problems_the_first_is_told() -> None:
    assert message({"count": 0, "rate": "x"}).startswith("loss.count=0")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        ("", "''"),
        (0, "0"),
        ((1, "a", None), "[1,a,null]"),
        ({"a": [1], "b": {}}, "{a:[1],b:{}}"),
    ],
)
def test_a_value_is_written_as_on_the_command_line(value: object, written: str) -> None:
    assert as_written(value) == written


@pytest.mark.parametrize(
    ("section", "how"),
    [
        ("loss", "`rlkit show loss <name>`"),
        ("buffer.first", "`rlkit show buffer <name>`"),
        ("train", "`python -m rlkit.run --cfg job -p train`"),
        ("", "`python -m rlkit.run --cfg job`"),
    ],
)
def test_where_all_keys_of_a_section_are_listed(section: str, how: str) -> None:
    assert how_to_list(section) == how


class Set(PartConfig):
    whole: int = Field(2, ge=1)
    """A whole number."""


def test_a_value_of_a_schedule_is_rounded_as_in_a_run() -> None:
    assert with_value(Set(), "buffer.whole", 0.6) == Set(whole=1)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("buffer.whole", 0.4, r"the schedule sets buffer\.whole, but buffer\.whole=0 is not valid"),
        ("buffer.whole", float("nan"), r"but buffer\.whole=nan is not valid"),
        ("buffer.whole", "x", r"but buffer\.whole=x is not valid: it must be an integer"),
        ("buffer.whol", 1, r"no such field\. Did you mean 'buffer\.whole'\?"),
    ],
)
def test_a_value_of_a_schedule_must_be_legal(place: str, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        with_value(Set(), place, value)
