"""The name of the composition, from the overrides alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from rlkit.composition.chosen import chosen_algorithm, told_to_trackers
from rlkit.composition.config_files import configs_folder
from rlkit.composition.hydra_groups import store_groups


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "remix"),
        (("algorithm=grpo", "seed=1"), "grpo"),
        (("algorithm='grpo'",), "grpo"),
        (("algorithm=grpo", "algorithm=topr"), "topr"),
        (("+experiment=bapo_paper",), "bapo"),
        (("+experiment=gsm8k",), "remix"),
        (("algorithm=grpo", "+experiment=bapo_paper"), "grpo"),
    ],
)
def test_the_composition_is_that_of_hydra(overrides: tuple[str, ...], name: str) -> None:
    assert chosen_algorithm(overrides) == name
    store_groups()
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        composed = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
    assert composed.hydra.runtime.choices["algorithm"] == name


def test_an_experiment_of_the_users_own_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("defaults:\n  - override /algorithm: topr\n")
    assert chosen_algorithm([f"--config-dir={tmp_path}", "+experiment=mine"]) == "topr"


def test_each_stage_has_its_own() -> None:
    raw = {"seed": 1, "stages": [{"steps": 1, "overrides": ["algorithm=sft"]}, {"steps": 2}]}
    told = told_to_trackers(raw, ["algorithm=grpo"], [{"seed": 1}, {"seed": 2}])
    assert told["algorithm"] == "grpo"
    assert told["stages"] == [
        {"seed": 1, "algorithm": "sft", "stages": []},
        {"seed": 2, "algorithm": "grpo", "stages": []},
    ]
    assert "algorithm" not in raw, "the run's own configuration stays as it is"
