"""Rollouts that suit a run, and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.stored import suit
from rlkit.stored.card import Card
from rlkit.stored.suit import Opener
from rlkit.stored.write import RolloutWriter
from tests.stored.groups import TOKENIZER, group


def opener(temperature: float = 1.0) -> Opener:
    return Opener(tokenizer=TOKENIZER, temperature=temperature)


def written(folder: Path, **card: Any) -> str:
    RolloutWriter(folder, Card(**card), TOKENIZER).write([group(0)], 1, offset=0)
    return str(folder)


@pytest.fixture(autouse=True)
def hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suit, "tokenizer_hash", lambda tokenizer: "ours")


def test_the_same_tokenizer_and_temperature_suit(tmp_path: Path) -> None:
    assert len(opener()(written(tmp_path, tokenizer="ours"))) == 1
    assert len(opener()(written(tmp_path / "unknown"))) == 1


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another tokenizer"):
        opener()(written(tmp_path, tokenizer="theirs"))


def test_another_temperature_is_refused_unless_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, temperature=0.6)
    with pytest.raises(UserError, match=r"temperature 0\.6.*buffer\.other_temperature=keep"):
        opener(1.0)(path)
    assert len(opener(0.6)(path)) == len(opener(1.0)(path, any_temperature=True)) == 1


def test_a_path_is_needed() -> None:
    with pytest.raises(UserError, match="needs buffer.path"):
        opener()(None)
