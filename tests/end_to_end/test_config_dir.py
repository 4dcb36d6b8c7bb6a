"""A user's own folder of compositions, experiments and variants: `--config-dir ./my_configs`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rlkit.runs.stopping import resume_command
from tests.cli import SMALL, command, run

MINE = """\
# @package _global_
# Mine: GRPO with a narrow clip on replayed groups.
defaults:
  - override /loss: my_grpo
  - override /advantage: group_norm
  - override /buffer: fifo
  - override /anchor: none
  - override /schedule: never
train: {updates_per_batch: 3}
"""
VARIANT = """\
# GRPO with a narrow clip.
defaults:
  - grpo
clip_low: 0.05
"""
EXPERIMENT = """\
# @package _global_
# An experiment on a composition of the same folder.
defaults:
  - override /algorithm: mine
eval: {samples: 2, k: 2}
"""
MASK = """\
# @package correction.tis
defaults:
  - tis
mode: mask
"""
DIRECTORY = ("--config-dir", "./my_configs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with such a folder in it."""
    for place, text in {
        "algorithm/mine": MINE,
        "loss/my_grpo": VARIANT,
        "experiment/twice": EXPERIMENT,
        "correction/my_mask": MASK,
    }.items():
        path = tmp_path / "my_configs" / f"{place}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path


def composed(*arguments: str, cwd: Path) -> dict:
    result = run(*arguments, "--cfg", "job", cwd=cwd)
    assert result.status == 0, result.err
    return yaml.safe_load(result.out)


@pytest.mark.parametrize("chosen", ["algorithm=mine", "+experiment=twice"])
@pytest.mark.parametrize("first", [True, False])
def test_a_run_finds_the_files(chosen: str, first: bool, folder: Path) -> None:
    arguments = [*DIRECTORY, chosen] if first else [chosen, *DIRECTORY]
    config = composed(*arguments, cwd=folder)
    assert config["eval"]["samples"] == (2 if chosen == "+experiment=twice" else 1)
    assert config["loss"]["name"] == "grpo" and config["loss"]["clip_low"] == 0.05
    assert config["buffer"]["name"] == "fifo"
    assert config["train"]["updates_per_batch"] == 3


@pytest.mark.slow
def test_a_run_and_its_evaluation(folder: Path) -> None:
    small = (*SMALL, "train.updates_per_batch=1")
    chosen = "+experiment=twice"
    result = run(*DIRECTORY, chosen, *small, "output_dir=out", cwd=folder)
    assert result.status == 0, result.err
    config = yaml.safe_load((folder / "out" / "config.yaml").read_text())
    assert config["loss"]["clip_low"] == 0.05 and config["eval"]["k"] == 2
    given = (folder / "out" / "overrides").read_text().splitlines()
    assert given[:2] == [f"--config-dir={folder / 'my_configs'}", chosen]
    checkpoint = ("eval", "out/checkpoint-2")
    sizes = ("eval.problems=8", "rollout.max_completion_length=14")
    for arguments in (
        (*checkpoint, *DIRECTORY, chosen, *sizes),
        (*checkpoint, chosen, *sizes, "--config-dir=my_configs"),
        ("eval", *DIRECTORY, "out/checkpoint-2", chosen, *sizes),
    ):
        evaluated = command("rlkit.__main__", *arguments, cwd=folder)
        assert evaluated.status == 0, evaluated.err
        assert set(json.loads(evaluated.out)) >= {"eval/pass@1", "eval/pass@2", "eval/greedy"}
    other = ("task=arithmetic", "algorithm=mine")
    mine = command("rlkit.__main__", *checkpoint, *other, *DIRECTORY, *sizes, cwd=folder)
    scores = {"eval/pass@1", "eval/greedy"}
    assert set(json.loads(mine.out)) >= scores, mine.err
    assert "eval/pass@2" not in json.loads(mine.out)
    without = command("rlkit.__main__", *checkpoint, "algorithm=mine", cwd=folder)
    assert without.status == 2 and "no algorithm called 'mine'" in without.err


def test_a_run_is_continued_by_the_command_it_prints(folder: Path) -> None:
    words = resume_command(["--config-dir=/x", "algorithm=mine", "resume=never"], "out")
    assert words == (
        "python -m rlkit.run --config-dir=/x algorithm=mine output_dir=out resume=auto"
    )


def test_stages_find_the_files(folder: Path) -> None:
    one = "{steps: 2, overrides: ['algorithm=sft']}"
    two = "{steps: 3, overrides: ['algorithm=mine']}"
    result = run(*DIRECTORY, f"stages=[{one}, {two}]", "dry_run=true", cwd=folder)
    assert result.status == 0, result.err
    assert "It takes 3 x " in result.out.split("Stage 2 of 2")[1]


def test_list_show_and_help_know_the_files(folder: Path) -> None:
    def said(module: str, *arguments: str) -> str:
        result = command(module, *arguments, *DIRECTORY, cwd=folder)
        assert result.status == 0, result.err
        return result.out

    names = said("rlkit.__main__", "list", "algorithm").split()
    assert "mine" in names and "remix" in names and names == sorted(names)
    shown = said("rlkit.__main__", "show", "algorithm", "mine")
    assert "\nMine: GRPO with a narrow clip" in shown and "loss=my_grpo\n" in shown
    shown = said("rlkit.__main__", "show", "loss", "my_grpo")
    assert "loss=grpo with\n  loss.clip_low=0.05\n" in shown
    assert "loss.clip_low = 0.05    (number > 0, <= 1)" in shown
    page = said("rlkit.run", "--help")
    assert " mine," in page and " my_grpo," in page and ", twice" in page
    assert " mine," not in run("--help", cwd=folder).out


def test_a_misspelt_name_is_told_the_users_own(folder: Path) -> None:
    result = run(*DIRECTORY, "algorithm=mime", cwd=folder)
    assert result.status == 2 and "Did you mean 'mine'?" in result.err
    result = run(*DIRECTORY, "correction=[my_mas]", cwd=folder)
    assert "no correction called 'my_mas'. Did you mean 'my_mask'?" in result.err
    shown = command("rlkit.__main__", "show", "loss", "my_grop", *DIRECTORY, cwd=folder)
    assert shown.status == 2 and "Did you mean 'my_grpo'?" in shown.err


def test_a_name_of_the_shipped_configs_stays_theirs(folder: Path) -> None:
    (folder / "my_configs" / "algorithm" / "remix.yaml").write_text(MINE)
    told = run(*DIRECTORY, "algorithm=remix", "dry_run=true", cwd=folder)
    assert "Warning: algorithm=remix is rlkit's own; give algorithm/remix.yaml in" in told.out
    assert composed(*DIRECTORY, "algorithm=remix", cwd=folder)["loss"]["name"] == "remix"
    shown = command("rlkit.__main__", "show", "algorithm", "remix", *DIRECTORY, cwd=folder)
    assert "loss=remix\n" in shown.out


@pytest.mark.parametrize("text", ["{broken", "- a\n- b\n"])
def test_a_file_that_is_no_config_is_one_line(text: str, folder: Path) -> None:
    path = folder / "my_configs" / "algorithm" / "mine.yaml"
    path.write_text(text)
    shown = command("rlkit.__main__", "show", "algorithm", "mine", *DIRECTORY, cwd=folder)
    assert shown.status == 2 and len(shown.err.splitlines()) == 1 and str(path) in shown.err
    trained = run(*DIRECTORY, "algorithm=mine", "dry_run=true", cwd=folder)
    assert trained.status == 2 and len(trained.err.splitlines()) == 1, trained.err
    assert "mine" in trained.err or text != "{broken"


def test_a_composition_without_its_first_line_is_told_it(folder: Path) -> None:
    path = folder / "my_configs" / "algorithm" / "mine.yaml"
    path.write_text(path.read_text().replace("# @package _global_\n", ""))
    result = run(*DIRECTORY, "algorithm=mine", "dry_run=true", cwd=folder)
    assert result.status == 2
    assert (
        "algorithm/mine.yaml chooses parts of the whole run: begin it with the line" in result.err
    )
