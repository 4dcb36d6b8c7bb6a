"""The page of --help: every group with its default."""

from __future__ import annotations

import pytest

from rlkit.composition import config_files, help_page
from rlkit.composition.config_files import configs_folder, default_choices
from rlkit.composition.help_page import WIDTH, print_help


def test_every_group_is_described_with_how_it_is_chosen_and_its_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert set(help_page.GROUPS) == set(config_files.GROUPS)
    print_help((configs_folder(),))
    page = capsys.readouterr().out
    chosen = default_choices()
    assert f"  loss=NAME  {help_page.GROUPS['loss']} (default: {chosen['loss']})" in page
    assert "  reward=[NAME,...]  " in page and "  +experiment=NAME  " in page
    assert "train.learning_rate = 1e-06    (number > 0)" in page
    listed = page.partition("Groups\n")[2].partition("Keys of the run")[0]
    assert all(len(line) <= WIDTH for line in listed.splitlines() if line.startswith("      "))
