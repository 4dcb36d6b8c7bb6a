"""Trees without pickle, the manifest that comes last, and what a damaged checkpoint is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.distributed.learner import Learner
from rlkit.errors import UserError
from rlkit.runs.checkpoint import (
    CheckpointError,
    check_tree,
    checkpoint_step,
    list_checkpoints,
    load_tree,
    newest_in,
    prune,
    remove_leftovers,
    save_tree,
    write_checkpoint,
)


def write_x(folder: Path) -> None:
    (folder / "x").write_text("y")


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    shared = torch.arange(6)
    tree: dict[str, Any] = {
        "a": [1, 2.5, None, True, "text", {"b": shared.view(2, 3)}],
        "same memory": shared[2:],
        "empty": {},
        "bool": torch.tensor([True, False]),
        "bf16": torch.tensor([1.5], dtype=torch.bfloat16),
        "strided": shared.view(2, 3).T,
    }
    save_tree(tmp_path / "t", tree)
    back = load_tree(tmp_path / "t")
    assert back["a"][:5] == tree["a"][:5] and back["empty"] == {}
    assert torch.equal(back["a"][5]["b"], shared.view(2, 3))
    assert torch.equal(back["same memory"], shared[2:]) and torch.equal(
        back["strided"], tree["strided"]
    )
    assert back["bf16"].dtype == torch.bfloat16 and back["bool"].dtype == torch.bool


def test_only_tensors_that_share_memory_are_copied_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another copy of all moments might not fit into memory."""
    alone, shared = torch.arange(6), torch.arange(4)
    written: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(
        "rlkit.runs.checkpoint.save_file", lambda tensors, path: written.append(tensors)
    )
    save_tree(tmp_path / "t", {"a": alone, "b": shared, "c": shared[1:]})
    (found,) = written
    assert [t.data_ptr() for t in found.values()][:2] == [alone.data_ptr(), shared.data_ptr()]
    assert found["2"].untyped_storage().data_ptr() != shared.untyped_storage().data_ptr()


def test_every_file_and_folder_is_flushed_and_the_manifest_after_what_it_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr("rlkit.runs.checkpoint._sync", lambda path: flushed.append(path.name))

    def write(folder: Path) -> None:
        (folder / "state").mkdir()
        for name in ("a", "b", "state/c"):
            (folder / name).write_text(name)

    write_checkpoint(tmp_path, 1, write)
    assert sorted(flushed[:3]) == ["a", "b", "c"]
    temporary = ".checkpoint-1.tmp"
    assert flushed[3:] == ["state", "manifest.json", temporary, tmp_path.name]


@pytest.mark.parametrize("value", [object(), {1: 2}, {"x": {3}}, np.zeros(2)])
def test_what_a_checkpoint_cannot_keep_is_an_error(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"t\.part"):
        save_tree(tmp_path / "t", {"part": value})
    with pytest.raises(TypeError, match=r"t\.part"):
        check_tree("t", {"part": value})
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_a_manifest_does_not_count(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        write_checkpoint(tmp_path, step, write_x)
    (tmp_path / "checkpoint-11").mkdir()
    assert [p.name for p in list_checkpoints(tmp_path)] == [
        "checkpoint-2",
        "checkpoint-9",
        "checkpoint-10",
    ]
    assert checkpoint_step(tmp_path / "checkpoint-10") == 10
    prune(tmp_path, 2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]


def test_a_writer_that_fails_leaves_no_checkpoint(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("power cut")

    with pytest.raises(CheckpointError, match=r"^RuntimeError: power cut$"):
        write_checkpoint(tmp_path, 1, fail)
    assert list_checkpoints(tmp_path) == [] and list(tmp_path.iterdir()) == []
    write_checkpoint(tmp_path, 1, write_x)
    assert sorted(p.name for p in (tmp_path / "checkpoint-1").iterdir()) == ["manifest.json", "x"]


def test_a_checkpoint_that_was_being_replaced_when_the_run_was_killed_is_not_lost(
    tmp_path: Path,
) -> None:
    """The kill came between the two renames; or after both, and the older one is left over."""
    path, aside = write_checkpoint(tmp_path, 3, write_x), tmp_path / ".checkpoint-3.old"
    path.rename(aside)
    (tmp_path / ".checkpoint-3.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert [*tmp_path.iterdir()] == [path] and checkpoint_step(path) == 3
    shutil.copytree(path, aside)
    (aside / "x").write_text("older")
    remove_leftovers(tmp_path)
    assert [*tmp_path.iterdir()] == [path] and checkpoint_step(path) == 3


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, write_x)
    (path / "x").write_text("z")
    with pytest.raises(UserError, match="damaged: x is missing or changed"):
        checkpoint_step(path)
    (path / "x").unlink()
    with pytest.raises(UserError, match="damaged: x"):
        checkpoint_step(path)
    (path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="is not a complete checkpoint"):
        checkpoint_step(path)


def test_a_checkpoint_of_another_format_is_found_but_not_continued(tmp_path: Path) -> None:
    """Format 2 named prompts by their places in the data; its weights can still be evaluated."""
    path = write_checkpoint(tmp_path, 4, write_x)
    manifest = path / "manifest.json"
    older = {**json.loads(manifest.read_text()), "format": 2}
    manifest.write_text(json.dumps(older))
    assert list_checkpoints(tmp_path) == [path] and newest_in(str(tmp_path)) == str(path)
    assert newest_in(str(path)) == str(path) and newest_in("a/model") == "a/model"
    with pytest.raises(UserError, match="another version of rlkit.*cannot continue.*rlkit eval"):
        checkpoint_step(path)


def test_the_optimizer_continues_exactly(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        layer = torch.nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight.fill_(0.5)
            layer.bias.zero_()
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)

    def step(layer: torch.nn.Linear, optimizer: torch.optim.AdamW) -> None:
        optimizer.zero_grad()
        layer(torch.tensor([1.0, 2.0, 3.0])).pow(2).sum().backward()
        optimizer.step()

    layer, optimizer = make()
    step(layer, optimizer)
    save_tree(tmp_path / "o", Learner(layer, layer, optimizer).state_dict())
    weights = {k: v.clone() for k, v in layer.state_dict().items()}
    step(layer, optimizer)
    again, other = make()
    again.load_state_dict(weights)
    Learner(again, again, other).load_state_dict(load_tree(tmp_path / "o"))
    step(again, other)
    assert torch.equal(layer.weight, again.weight)
