"""Where the model is that a run begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlkit.composition.base_model import check_base, check_model, model_folder
from rlkit.errors import UserError
from rlkit.models.embedded import embedded_model_dir
from rlkit.models.embedded_calls import calls_model_dir
from tests.compositions import composed


def test_the_embedded_model_has_a_folder_and_other_names_are_handed_on() -> None:
    c = composed()
    assert model_folder(c) == str(embedded_model_dir(0))
    model = c.config.model.model_copy(update={"name": "some/name"})
    assert model_folder(replace(c, config=c.config.model_copy(update={"model": model}))) == (
        "some/name"
    )


def test_a_calculator_brings_its_sums_its_model_and_its_settings() -> None:
    c = composed("environment=calculator", "algorithm=grpo")
    assert model_folder(c) == str(calls_model_dir(0))
    assert c.task.config.model_dump()["operands"] == c.task.config.model_dump()["digits"] == 3
    assert c.engine.config.max_prompt_length == len("347+682+915=")
    without = composed("+experiment=without_calculator", "algorithm=grpo")
    assert without.environment is None and model_folder(without) == model_folder(c)
    assert without.config.train == c.config.train
    assert without.engine.config == c.engine.config


def test_other_models_and_tasks_get_none_of_it() -> None:
    c = composed("environment=calculator", "task=jsonl", "task.path=x", "model.name=some/name")
    assert c.engine.config.max_completion_length == 512
    assert model_folder(c) == "some/name"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("environment=calculator", "task.operands=5", "task.digits=1"), "calls no tool but"),
        (("environment=frozen_lake",), "calls no tool but environment=calculator"),
        (
            ("environment=frozen_lake", "task.operands=3", "task.digits=3"),
            "set model.name to a chat model",
        ),
        (("environment=calculator", "eval.task=arithmetic"), "leave eval.task out"),
    ],
)
def test_what_the_embedded_models_do_not_know_is_said(
    overrides: tuple[str, ...], said: str
) -> None:
    c = composed(*overrides)
    for use in (check_base, model_folder):
        with pytest.raises(UserError, match=said):
            use(c)
    model = c.config.model.model_copy(update={"name": "some/name"})
    check_base(replace(c, config=c.config.model_copy(update={"model": model})))


def test_a_checkpoint_that_is_gone_is_told_the_newest_and_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "mine" / "checkpoint-4"
    there.mkdir(parents=True)
    (there / "manifest.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    c = composed("model.name=mine/checkpoint-2", "task=jsonl", "task.path=x")
    with pytest.raises(UserError, match="mine/checkpoint-2 does not exist; the newest .*-4"):
        check_model(c)
