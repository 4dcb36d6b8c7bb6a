"""What the catalog says of parts and of the run's own settings."""

from __future__ import annotations

import pytest

from rlkit.composition.catalog import Catalog, of_registry, values_of
from rlkit.config.run import RunConfig
from rlkit.errors import UserError
from rlkit.registry import entry, names


def test_the_runs_own_settings_are_those_of_its_config() -> None:
    made = of_registry()
    assert RunConfig(**made.run_node).model_dump(mode="json") == made.run_node
    sections = {"model", "train", "prompts", "turns", "eval", "checkpoint", "completions"}
    assert set(made.sections()) == sections
    assert made.sections()["checkpoint"] == ["every", "keep", "on_error"]
    keys = made.run_keys()
    assert keys[:2] == ["seed", "output_dir"] and "model.lora.r" in keys
    assert keys.index("model") < keys.index("model.lora") < keys.index("model.lora.r")
    rate = next(each for each in made.run_settings if each.name == "train.learning_rate")
    assert (rate.default, rate.values) == ("1e-06", "number > 0") and "Peak" in rate.meaning


def test_a_name_that_is_not_there_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no loss called 'remx'\. Did you mean 'remix'\?"):
        of_registry().part("loss", "remx")


def test_what_is_said_of_a_part_is_what_its_source_says() -> None:
    part = of_registry().part("buffer", "fifo")
    config = entry("buffer", "fifo").config
    assert part.section == "buffer" and part.import_path == "buffers.fifo:Fifo"
    assert part.node == {"name": "fifo", **config().model_dump(mode="json")}
    assert [each.name for each in part.settings] == list(config.model_fields)
    assert of_registry().part("correction", "tis").section == "correction.tis"


def test_a_catalog_comes_back_from_its_text() -> None:
    made = of_registry()
    assert Catalog.from_json(made.to_json()) == made
    assert made.names("loss") == sorted(names("loss"))


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"type": "integer", "minimum": 1}, "integer >= 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number > 0, <= 1"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or null"),
        ({"enum": ["a", "b"]}, "a | b"),
        ({"const": "a"}, "a"),
        ({}, "any"),
    ],
)
def test_a_type_and_its_bounds_in_words(field: dict[str, object], words: str) -> None:
    assert values_of(field) == words
