"""What is wrong with a reward model is found in its files, before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.rewards.learned.files import check_alike, check_models, shapes_of
from tests.reward_models import save_reward_model


def refused(*paths: str | Path) -> str:
    with pytest.raises(UserError) as error:
        check_models([str(path) for path in paths])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folders_of_reward_models_pass_and_names_of_the_hub_are_left_to_it(tmp_path: Path) -> None:
    one, two = (save_reward_model(tmp_path / name, seed) for seed, name in enumerate("ab"))
    check_models([one, two, "owner/name"])


def test_a_missing_folder_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "reward_model").mkdir()
    assert "no such folder. Did you mean 'reward_model'" in refused(tmp_path / "reward_modle")
    assert f"there is no folder {tmp_path / 'x'}" in refused(tmp_path / "x" / "y")
    (tmp_path / "file").touch()
    assert "that is a file" in refused(tmp_path / "file")
    assert "it has no config.json" in refused(tmp_path / "reward_model")


def test_an_adapter_alone_is_told_to_be_merged(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").touch()
    assert "an adapter alone; merge it" in refused(tmp_path)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    path = save_reward_model(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    assert "no weights as .safetensors, and other files are not read" in refused(path)


def test_several_labels_are_refused(tmp_path: Path) -> None:
    path = save_reward_model(tmp_path / "m", labels=3)
    assert "has 3 labels, and a reward model has one" in refused(path)


def test_code_of_the_models_own_is_not_run(tmp_path: Path) -> None:
    path = Path(save_reward_model(tmp_path / "m"))
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "mine.py").write_text("raise SystemExit('run')")
    assert "cannot be loaded" in refused(path)


def test_models_of_other_shapes_have_no_mean(tmp_path: Path) -> None:
    one = save_reward_model(tmp_path / "a")
    other = save_reward_model(tmp_path / "b", intermediate_size=32)
    text = refused(one, other)
    assert "have no mean" in text and "mlp.down_proj.weight of shape [16, 16]" in text
    assert "of shape [16, 32]" in text
    deeper = save_reward_model(tmp_path / "c", num_hidden_layers=3)
    assert f"{one} has no model.layers.2" in refused(one, deeper)


def test_shapes_come_from_the_headers_and_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = Path(save_reward_model(tmp_path / "a"))
    assert shapes_of(path)["score.weight"] == (1, 16)
    check_alike("a", shapes_of(path), "b", shapes_of(path))
    copy = tmp_path / "b"
    shutil.copytree(path, copy)
    (copy / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "cannot be loaded" in refused(path, copy)
