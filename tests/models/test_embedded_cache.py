"""The embedded model on disk: made once, a folder like any other model's, whole or not at all."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlkit.errors import UserError
from rlkit.models import embedded
from rlkit.models.embedded import (
    EOS,
    PAD,
    Recipe,
    _make_once,
    embedded_model_dir,
    make_model,
    warm_up,
)

SHORT = Recipe(steps=3, batch=4)


@pytest.fixture(autouse=True)
def unshifted(monkeypatch):
    monkeypatch.delenv("RLKIT_BASE_SHIFT", raising=False)


def test_the_folder_loads_as_any_model_does(tmp_path):
    folder = _make_once(tmp_path, SHORT, 0, progress=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = warm_up(SHORT, 0, progress=False)
    assert torch.equal(model.lm_head.weight, made.lm_head.weight)
    ids = tokenizer("3+8+5+9+2=")["input_ids"]
    assert len(ids) == 10
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (PAD, EOS)
    assert (model.config.pad_token_id, model.config.eos_token_id) == (PAD, EOS)
    assert tokenizer.bos_token_id is None
    assert tokenizer.chat_template is None
    answer = [*tokenizer("11,16,25#27")["input_ids"], EOS, PAD]
    assert tokenizer.decode(ids + answer) == "3+8+5+9+2=11,16,25#27<eos><pad>"
    assert tokenizer.decode(ids + answer, skip_special_tokens=True) == "3+8+5+9+2=11,16,25#27"
    assert tokenizer("3<eos>")["input_ids"][-1] == EOS


def test_the_model_is_made_once(tmp_path, monkeypatch):
    folder = _make_once(tmp_path, SHORT, 0, progress=False)
    monkeypatch.setattr(embedded, "warm_up", None)
    assert _make_once(tmp_path, SHORT, 0, progress=False) == folder
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("failing", ["warm_up", "make_tokenizer", "_rename_unless_there"])
def test_a_crash_at_any_moment_leaves_nothing_behind(failing, tmp_path, monkeypatch):
    def crash(*args: object) -> None:
        raise RuntimeError("power")

    with monkeypatch.context() as patch:
        patch.setattr(embedded, failing, crash)
        with pytest.raises(RuntimeError, match="power"):
            _make_once(tmp_path, SHORT, 0, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert (_make_once(tmp_path, SHORT, 0, progress=False) / "model.safetensors").is_file()


def test_what_a_killed_process_left_is_never_taken_for_the_model(tmp_path):
    leftover = tmp_path / f".{SHORT.folder_name(0)}-0123abcd"
    leftover.mkdir()
    (leftover / "config.json").write_text("{}")
    folder = _make_once(tmp_path, SHORT, 0, progress=False)
    assert folder != leftover
    AutoModelForCausalLM.from_pretrained(folder)


def test_a_lost_race_takes_the_winners_model(tmp_path, monkeypatch):
    winner = tmp_path / SHORT.folder_name(0)

    def slower(recipe: Recipe, seed: int, progress: bool):
        winner.mkdir()
        (winner / "mark").touch()
        return warm_up(recipe, seed, progress)

    monkeypatch.setattr(embedded, "warm_up", slower)
    assert _make_once(tmp_path, SHORT, 0, progress=False) == winner
    assert [path.name for path in winner.iterdir()] == ["mark"]
    assert list(tmp_path.iterdir()) == [winner]


def test_a_folder_that_cannot_be_renamed_is_an_error(tmp_path, monkeypatch):
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        _make_once(tmp_path, SHORT, 0, progress=False)


def test_every_constant_and_the_seed_are_in_the_folders_name():
    names = {SHORT.folder_name(0), SHORT.folder_name(1)}
    for field in fields(Recipe):
        names.add(replace(SHORT, **{field.name: getattr(SHORT, field.name) + 1}).folder_name(0))
    assert len(names) == 2 + len(fields(Recipe))


def test_a_cache_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RLKIT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(embedded, "warm_up", None)
    with pytest.raises(UserError, match="set RLKIT_CACHE to a writable folder"):
        embedded_model_dir(seed=1)


def test_the_public_function_uses_the_cache_and_the_recipe(tmp_path, monkeypatch, capsys):
    asked = []

    def quick(recipe: Recipe, seed: int, progress: bool):
        asked.append((recipe, seed, progress))
        return make_model(recipe, seed)

    monkeypatch.setattr(embedded, "warm_up", quick)
    monkeypatch.setenv("RLKIT_CACHE", str(tmp_path))
    folder = embedded_model_dir(seed=2)
    assert folder == tmp_path / Recipe().folder_name(2)
    assert str(folder) in capsys.readouterr().out
    embedded_model_dir(seed=3, progress=False)
    assert asked == [(Recipe(), 2, True), (Recipe(), 3, False)]
    assert capsys.readouterr().out == ""
