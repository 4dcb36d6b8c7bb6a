"""verl's rollout data."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.stored.foreign import verl
from tests.stored.foreign import files


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
