"""Options that are files: what they state, where they are, and which come first."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.composition.config_files import (
    GROUPS,
    check_group,
    config_folders,
    configs_folder,
    default_choices,
    files_of,
    options,
    read_config_file,
)
from rlkit.errors import UserError
from rlkit.registry import names

TEXT = """\
# @package _global_
# Mine:
# two lines.
defaults:
  - base
  - override /loss: ppo
  - optional /buffer@_here_: fifo
  - _self_
train:
  steps: 3
"""


def test_a_file_states_what_it_builds_on_chooses_and_sets(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    found = read_config_file(path)
    assert found.about == "Mine:\ntwo lines."
    assert found.chooses == (("loss", "ppo"), ("buffer", "fifo"))
    assert found.bases == ("base",) and found.values == {"train": {"steps": 3}}


@pytest.mark.parametrize(
    ("text", "said"), [("a: [1", "cannot be read"), ("- 1\n", "must hold keys and values")]
)
def test_what_is_no_config_is_said(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_config_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_file_states_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    found = read_config_file(tmp_path / "empty.yaml")
    assert (found.about, found.chooses, found.bases, found.values) == ("", (), (), {})


def test_of_two_files_of_one_name_the_first_folders_counts(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "algorithm").mkdir(parents=True)
        (tmp_path / folder / "algorithm" / "both.yaml").write_text("")
    (tmp_path / "b" / "algorithm" / "other.yaml").write_text("")
    found = files_of("algorithm", (tmp_path / "a", tmp_path / "b"))
    assert found == {
        "both": tmp_path / "a" / "algorithm" / "both.yaml",
        "other": tmp_path / "b" / "algorithm" / "other.yaml",
    }
    assert options("algorithm", (tmp_path / "b",)) == ["both", "other"]


def test_options_are_registered_parts_and_files(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "of_mine.yaml").write_text("")
    found = options("loss", (tmp_path,))
    assert set(found) == {*names("loss"), "of_mine"} and found == sorted(found)


def test_the_folders_are_the_shipped_one_and_a_users_own(tmp_path: Path) -> None:
    assert config_folders(None) == (configs_folder(),)
    assert config_folders(str(tmp_path)) == (configs_folder(), tmp_path.resolve())
    assert (configs_folder() / "config.yaml").is_file()
    with pytest.raises(UserError, match="--config-dir .*none is no folder"):
        config_folders(str(tmp_path / "none"))


def test_a_group_that_is_none_is_told_the_nearest() -> None:
    for group in GROUPS:
        check_group(group)
    with pytest.raises(UserError, match="called 'los'. Did you mean 'loss'"):
        check_group("los")


def test_what_a_run_takes_by_default_is_what_its_files_say() -> None:
    chosen = default_choices()
    assert list(chosen) == [group for group in GROUPS if group in chosen]
    for group, option in chosen.items():
        assert option in options(group, (configs_folder(),)) or not isinstance(option, str)
