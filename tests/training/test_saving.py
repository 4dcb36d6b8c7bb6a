"""The trial before the first step finds what no checkpoint could keep; nothing loses a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.config.saving import CheckpointConfig
from rlkit.errors import UserError
from rlkit.interfaces import State
from rlkit.runs.checkpoint import list_checkpoints
from rlkit.training import saving
from rlkit.training.counters import Counters
from rlkit.training.saving import try_save
from rlkit.training.state import TrainState
from rlkit.training.trainer import Trainer
from tests.models.test_generation import GREEDY, contradicting
from tests.sessions import config_of, heard, make_session
from tests.tiny import make_policy


def state_of(folder: Path, **changes: Any) -> TrainState:
    return TrainState(make_session(make_policy(), folder, **changes), Counters())


def test_a_trial_leaves_nothing_behind_and_draws_nothing(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    before, drawn = sorted(tmp_path.rglob("*")), torch.get_rng_state()
    try_save(state)
    assert sorted(tmp_path.rglob("*")) == before
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not heard(state.session).lines


def test_a_generation_config_that_contradicts_itself_costs_no_run(tmp_path: Path) -> None:
    session = make_session(make_policy(), tmp_path, config=config_of(tmp_path, steps=1))
    session.policy.model.generation_config = contradicting(**GREEDY)
    assert Trainer(session).run()
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-1"]


def test_state_that_cannot_be_kept_is_found_before_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(tmp_path)
    monkeypatch.setattr(state.session.schedule, "state_dict", lambda: {"seen": {1, 2}})
    with pytest.raises(UserError, match=r"TypeError: state schedule\.seen holds a set"):
        Trainer(state.session).run()
    assert not heard(state.session).logged, "nothing was trained or evaluated"


def test_a_part_or_tokenizer_that_fails_is_found_before_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> State:
        raise KeyError("lost")

    state = state_of(tmp_path)
    monkeypatch.setattr(state.session.buffer, "state_dict", fails)
    with pytest.raises(UserError, match="KeyError: 'lost'.*nothing was trained"):
        try_save(state)
    state = state_of(tmp_path / "other")
    monkeypatch.setattr(state.session.policy.tokenizer, "save_pretrained", fails)
    with pytest.raises(UserError, match="KeyError: 'lost'"):
        try_save(state)


@pytest.mark.parametrize("on_error", ["continue", "stop"])
def test_a_disk_that_refuses_is_left_to_on_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: str
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    config = config_of(tmp_path)
    changed = CheckpointConfig.model_validate({"on_error": on_error})
    state = state_of(tmp_path, config=config.model_copy(update={"checkpoint": changed}))
    monkeypatch.setattr(saving, "save_config", full)
    line = "trial checkpoint could not be written (No space left on device)."
    if on_error == "stop":
        with pytest.raises(UserError) as error:
            try_save(state)
        assert str(error.value) == f"a {line}"
    else:
        try_save(state)
        assert heard(state.session).lines == [f"A {line}"]
