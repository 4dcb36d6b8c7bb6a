"""Trinity-RFT's experience buffers; a pickle in them never runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.errors import UserError
from rlkit.stored.foreign import trinity
from tests.stored.foreign import files


class Command:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


def row(logp: list[float] | None = None, **changes: Any) -> dict[str, Any]:
    """A response of three tokens behind a prompt of two, the second of which a tool wrote."""
    tensors = {
        "tokens": torch.tensor([4, 5, 6, 7, 8], dtype=torch.int32),
        "action_mask": torch.tensor([True, False, True]),
        "logprobs": torch.tensor([-0.5, 0.0, -0.25] if logp is None else logp),
    }
    data = files.trinity_bytes(tensors, pickle.dumps(Command()))
    facts = {"task_id": "7", "run_id": 0, "model_version": 2, "reward": 1.0}
    return {**facts, "experience_bytes": data, **changes}


@pytest.mark.parametrize("apart", [False, True])
def test_a_database_gives_tokens_masks_and_log_probs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, apart: bool
) -> None:
    """In one table or in two, and without the pickle, which would print."""
    rows = [row(), row(reward=0.0), row(task_id="8")]
    first, second, third = trinity.records(
        files.trinity(tmp_path / "a.db", rows, apart=apart), None
    )
    assert (first.prompt_ids, first.response_ids) == ([4, 5], [6, 7, 8])
    assert first.loss_mask == [True, False, True] and first.behavior_logp == [-0.5, 0.0, -0.25]
    assert [(r.reward, r.step) for r in (first, second)] == [(1.0, 2), (0.0, 2)]
    assert first.group == second.group != third.group
    assert first.finish_reason is None and "run" not in capsys.readouterr().out


def test_a_response_without_a_token_to_train_is_left_out(tmp_path: Path) -> None:
    """Trinity-RFT masks all of it if the prompt was cut."""
    tensors = {"tokens": torch.tensor([4, 5]), "action_mask": torch.zeros(1, dtype=torch.bool)}
    empty = row(experience_bytes=files.trinity_bytes(tensors))
    assert len([*trinity.records(files.trinity(tmp_path / "a.db", [empty, row()]), None)]) == 1


def test_a_row_that_is_a_pickle_gives_its_texts_or_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pickle.dumps(Command())
    texts = row(experience_bytes=data, prompt="1+1=", response="2")
    (found,) = trinity.records(files.trinity(tmp_path / "a.db", [texts]), None)
    assert (found.prompt, found.response, found.behavior_logp) == ("1+1=", "2", None)
    with pytest.raises(UserError, match=r"b\.db row 1 is a pickle"):
        list(trinity.records(files.trinity(tmp_path / "b.db", [row(experience_bytes=data)]), None))
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward": None}, "has no 'reward'"),
        ({"experience_bytes": b"TRXP\x01"}, "cannot be read"),
        ({"experience_bytes": b"TRXP\x02" + bytes(16)}, "unknown version"),
        ({"experience_bytes": files.trinity_bytes({})}, "no tokens"),
        ({"logp": [-0.5]}, "1 log-probs for 3 tokens"),
        (
            {"experience_bytes": files.trinity_bytes({"chosen": torch.ones(2)})},
            "is a preference",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = files.trinity(tmp_path / "a.db", [row(**changes)])
    with pytest.raises(UserError, match=f"a.db row 1.*{said}"):
        list(trinity.records(path, None))


def test_a_database_of_other_tables_is_one_line(tmp_path: Path) -> None:
    path = files.trinity(tmp_path / "a.db", [row()])
    with pytest.raises(UserError, match="leave --reward out"):
        list(trinity.records(path, "accuracy"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"a\.db cannot be read"):
        list(trinity.records(path, None))


def test_lines_give_texts(tmp_path: Path) -> None:
    """Responses of one task in one batch are a group; --reward counts a metric in its place."""
    chat = [{"role": "user", "content": "2+2="}]
    eid = {"batch": 4, "task": 0}
    rows = [
        files.trinity_line(),
        files.trinity_line(response_text="3", truncate_status="response_truncated"),
        files.trinity_line(eid=eid, prompt_text=None, messages=chat),
    ]
    path = files.lines(tmp_path / "a.jsonl", rows)
    first, second, third = trinity.records(path, None)
    assert (first.prompt, first.response, first.reward, first.step) == ("1+1=", "2", 1.5, 6)
    assert first.rewards == {"accuracy": 1.0, "format": 0.5} and third.prompt == chat
    assert [r.finish_reason for r in (first, second)] == ["stop", "length"]
    assert first.group == second.group != third.group
    assert next(trinity.records(path, "accuracy")).reward == 1.0
    bad = files.lines(tmp_path / "b.jsonl", [files.trinity_line(response_text=None)])
    with pytest.raises(UserError, match=r"b\.jsonl line 1 has no 'response_text'"):
        list(trinity.records(bad, None))
