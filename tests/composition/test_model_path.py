"""A path without a model is told before anything else; a name of the hub passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.composition.model_path import check_exists
from rlkit.errors import UserError


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs in a folder, one with checkpoints and one without, and a folder that holds none."""
    monkeypatch.chdir(tmp_path)
    for step in (4, 16):
        folder = tmp_path / "runs" / "remix" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    (tmp_path / "runs" / "grpo").mkdir()
    for run in ("remix", "grpo"):
        (tmp_path / "runs" / run / "metrics.jsonl").write_text("")
    (tmp_path / "Qwen" / "data").mkdir(parents=True)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "runs/remix/checkpoint-9",
            "the newest checkpoint of that run is runs/remix/checkpoint-16",
        ),
        ("runs/grpo/checkpoint-9", "runs/grpo/checkpoint-9 does not exist."),
        ("no/checkpoint-9", "no/checkpoint-9 does not exist: there is no folder no"),
        ("runs/remx", "runs/remx does not exist. Did you mean 'remix'?"),
        ("./nothing", "./nothing does not exist."),
        ("nothing/", "nothing/ does not exist."),
        ("nothing.gguf", "nothing.gguf does not exist."),
        ("/no/such/model", "/no/such/model does not exist: there is no folder /no/such"),
        ("runs/grpo", "runs/grpo is a run without a checkpoint"),
    ],
)
def test_a_path_without_a_model_is_told(model: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_exists(model)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        *("runs/remix", "runs/remix/checkpoint-4", "./runs/remix", "embedded", "gpt2"),
        *("org/model", "Qwen/Qwen2.5-0.5B", "pkg://rlkit/models/base.gguf"),
    ],
)
def test_what_exists_and_a_name_of_the_hub_pass(model: str) -> None:
    check_exists(model)
