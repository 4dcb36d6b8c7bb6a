"""slime's rollout files, and pickles that are none."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from rlkit.errors import UserError
from rlkit.stored.foreign import slime
from tests.stored.foreign import files


def test_slime(tmp_path: Path) -> None:
    """The first response_length from the end are the response; an aborted one is left out."""
    (found,) = slime.records(files.slime(tmp_path / "2.pt"), None)
    assert (found.prompt_ids, found.response_ids) == ([4, 5, 6], [7, 8])
    assert found.behavior_logp == [-0.5, -0.25] and found.loss_mask == [True, False]
    assert (found.finish_reason, found.step, found.reward) == ("length", 2, 1.0)
    several = files.slime(tmp_path / "3.pt", reward={"a": 0.25, "b": 1.0})
    assert [r.reward for r in slime.records(several, "a")] == [0.25]
    with pytest.raises(UserError, match="--reward: a, b"):
        list(slime.records(several, None))
    with pytest.raises(UserError, match="rollout_log_probs has 1 entries for 2 tokens"):
        list(slime.records(files.slime(tmp_path / "4.pt", rollout_log_probs=[-0.5]), None))


class Command:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


def test_a_pickle_never_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"samples": [Command()]}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"samples": [Command()]}))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(UserError, match="could run code"):
            list(slime.records(tmp_path / name, None))
    assert "run" not in capsys.readouterr().out
