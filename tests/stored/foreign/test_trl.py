"""TRL's completions."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.stored.foreign import trl
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
