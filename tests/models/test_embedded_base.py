"""The embedded model that comes with rlkit: it is what the recipe makes, and stays as it is."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlkit.models import embedded
from rlkit.models.embedded import (
    ORIGIN,
    SHIPPED,
    Recipe,
    embedded_model_dir,
    make_model,
    make_tokenizer,
)
from tests.cli import SMALL, command, run

WEIGHTS = SHIPPED / "model.safetensors"
AGAIN = "run `python benchmarks/make_embedded_base.py`"


@pytest.fixture(autouse=True)
def unshifted(monkeypatch):
    monkeypatch.delenv("RLKIT_BASE_SHIFT", raising=False)


def test_its_weights_are_those_that_were_recorded_and_small():
    recorded = json.loads(ORIGIN.read_text())["model.safetensors"]
    assert sha256(WEIGHTS.read_bytes()).hexdigest() == recorded
    assert WEIGHTS.stat().st_size <= 700_000


def test_it_was_made_from_the_recipe_as_it_is_now():
    assert json.loads(ORIGIN.read_text())["made_from"] == Recipe().folder_name(0), AGAIN


def test_it_has_the_recipes_layers_and_tokens():
    model, wanted = AutoModelForCausalLM.from_pretrained(SHIPPED), make_model(Recipe(), 0)
    shapes = {name: weight.shape for name, weight in wanted.state_dict().items()}
    assert {name: weight.shape for name, weight in model.state_dict().items()} == shapes
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    assert tokenizer.get_vocab() == make_tokenizer().get_vocab()


def test_it_is_seed_0_and_nothing_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RLKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "warm_up", None)
    assert embedded_model_dir() == embedded_model_dir(0) == SHIPPED
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def made_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have other models made in `home`, untrained."""
    monkeypatch.setenv("RLKIT_CACHE", str(home))
    monkeypatch.setattr(embedded, "warm_up", lambda recipe, seed, _: make_model(recipe, seed))


def test_a_changed_recipe_never_gets_the_old_weights(tmp_path, monkeypatch):
    made_in(tmp_path, monkeypatch)
    changed = Recipe(forget_carry=0.4)
    monkeypatch.setattr(embedded, "Recipe", lambda: changed)
    assert embedded_model_dir(0, progress=False) == tmp_path / changed.folder_name(0)


def test_the_shift_is_added_to_the_seed(tmp_path, monkeypatch):
    made_in(tmp_path, monkeypatch)
    monkeypatch.setenv("RLKIT_BASE_SHIFT", "3")
    assert embedded_model_dir(0, progress=False) == tmp_path / Recipe().folder_name(3)
    assert embedded_model_dir(2, progress=False) == tmp_path / Recipe().folder_name(5)
    monkeypatch.setenv("RLKIT_BASE_SHIFT", "-2")
    assert embedded_model_dir(2, progress=False) == SHIPPED


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Name -> when it was written, and what is in it."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


@pytest.mark.slow
def test_training_and_evaluation_leave_it_as_it_is(tmp_path):
    before, own = content(SHIPPED), {"RLKIT_BASE_SHIFT": "0", "RLKIT_CACHE": str(tmp_path / "no")}
    for done in (
        run(*SMALL, "output_dir=full", cwd=tmp_path, env=own),
        run(*SMALL, "model.lora.r=2", "output_dir=lora", cwd=tmp_path, env=own),
        command("rlkit.__main__", "merge", "lora/checkpoint-2", "merged", cwd=tmp_path, env=own),
        command("rlkit.__main__", "eval", "embedded", "eval.problems=8", cwd=tmp_path, env=own),
    ):
        assert done.status == 0, done.err
    assert content(SHIPPED) == before
    assert not (tmp_path / "no").exists()
