"""Where the model is that a run begins with."""

from __future__ import annotations

from dataclasses import replace

from rlkit.composition.base_model import model_folder
from rlkit.models.embedded import embedded_model_dir
from tests.compositions import composed


def test_the_embedded_model_has_a_folder_and_other_names_are_handed_on() -> None:
    c = composed()
    assert model_folder(c) == str(embedded_model_dir(0))
    model = c.config.model.model_copy(update={"name": "some/name"})
    assert model_folder(replace(c, config=c.config.model_copy(update={"model": model}))) == (
        "some/name"
    )
