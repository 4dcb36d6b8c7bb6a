"""Each layout is read as its tool writes it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from rlkit.errors import UserError
from rlkit.stored.foreign import openai, slime, trl, verl
from tests.stored.foreign import files


def test_trl(tmp_path: Path) -> None:
    path = files.trl(tmp_path / "completions_00003.parquet")
    first, second = trl.records(path, None)
    assert first.prompt == [{"role": "user", "content": "1+1="}]
    assert (first.response, first.reward, first.step) == ("2", 1.5, 3)
    assert dict(first.rewards) == {"accuracy_reward": 1.0, "format_reward": 0.5}
    assert first.group == second.group and first.behavior_logp is None
    assert [r.reward for r in trl.records(path, "accuracy_reward")] == [1.0, 0.0]
    with pytest.raises(UserError, match="no 'nothing'"):
        list(trl.records(path, "nothing"))


def test_verl(tmp_path: Path) -> None:
    path = files.verl(tmp_path / "7.jsonl")
    found = list(verl.records(path, None))
    assert [(r.prompt, r.response, r.reward) for r in found] == [
        ("1+1=", "2", 1.0),
        ("1+1=", "3", 0.0),
        ("2+2=", "4", 1.0),
    ]
    assert found[0].group == found[1].group != found[2].group
    assert found[0].columns == {"answer": "2"} and found[0].step == 7
    files.lines(path, [{"input": "a", "output": "b", "score": float("nan"), "step": 1}])
    with pytest.raises(UserError, match=r"7\.jsonl line 1: 'score' is nan"):
        list(verl.records(path, None))


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

    def __reduce__(self) -> object:
        return (print, ("run",))


def test_a_pickle_never_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"samples": [Command()]}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"samples": [Command()]}))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(UserError, match="could run code"):
            list(slime.records(tmp_path / name, None))
    assert "run" not in capsys.readouterr().out


def test_openai(tmp_path: Path) -> None:
    first, second = openai.records(files.openai(tmp_path / "a.jsonl"), None)
    assert first.tokens == ["1", "2"] and first.behavior_logp == [-0.5, -0.125]
    assert first.group == second.group and first.finish_reason == "stop"
    assert second.tokens is None and second.finish_reason == "length"
    with pytest.raises(UserError, match="no 'reward'"):
        list(openai.records(files.openai(tmp_path / "b.jsonl", reward=None), None))


def test_a_batch_file_has_its_bodies(tmp_path: Path) -> None:
    row = {
        "request": {"body": {"messages": [{"role": "user", "content": "q"}]}},
        "response": {"body": {"choices": [{"message": {"content": "a"}}]}},
        "score": 0.5,
    }
    (found,) = openai.records(files.lines(tmp_path / "a.jsonl", [row]), "score")
    assert (found.response, found.reward) == ("a", 0.5)
