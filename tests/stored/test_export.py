"""A run's rollouts as one data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.stored import export as module
from rlkit.stored.card import Card
from rlkit.stored.export import export, steps_of
from rlkit.stored.read import StoredRollouts
from rlkit.stored.write import ROLLOUTS, RolloutWriter
from tests.stored.groups import TOKENIZER, group, same


def written(folder: Path, steps: int = 4) -> Path:
    writer = RolloutWriter(folder / ROLLOUTS, Card(model="m"), TOKENIZER)
    for step in range(1, steps + 1):
        writer.write([group(10 * step), group(10 * step + 5)], step, offset=0)
    return folder


@pytest.mark.parametrize(
    ("text", "steps"),
    [(None, (1, None)), ("3:7", (3, 7)), ("3:", (3, None)), (":7", (1, 7)), ("4:4", (4, 4))],
)
def test_steps(text: str | None, steps: tuple[int, int | None]) -> None:
    assert steps_of(text) == steps


@pytest.mark.parametrize("text", ["3", "a:b", "-1:2", "1:2:3"])
def test_other_texts_are_no_steps(text: str) -> None:
    with pytest.raises(UserError, match="10:20"):
        steps_of(text)


def test_the_groups_of_the_steps_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of at least 7 rows: steps 2 and 3, then 4, of six rows each."""
    run = written(tmp_path / "run")
    monkeypatch.setattr(module, "ROWS", 7)
    assert export(run, tmp_path / "out", (2, None)) == (2, 18)
    before, after = StoredRollouts(str(run)), StoredRollouts(str(tmp_path / "out"))
    assert after.names == ["part-00000.parquet", "part-00001.parquet"]
    for a, b in zip(before.groups(range(2, 8)), after.groups(range(6)), strict=True):
        assert same(a, b)
    assert Card.read(tmp_path / "out") == Card(model="m")


def test_stages_that_sample_differently_stay_apart(tmp_path: Path) -> None:
    run = written(tmp_path / "run", steps=2)
    later = RolloutWriter(run / ROLLOUTS, Card(model="m", temperature=0.5), TOKENIZER)
    later.write([group(90)], 1, offset=2)
    assert export(run, tmp_path / "out") == (2, 15)
    cards = [shard.card for shard in StoredRollouts(str(tmp_path / "out")).shards]
    assert [card.temperature for card in cards if card is not None] == [1.0, 0.5]


def test_nothing_is_overwritten_and_nothing_is_made_up(tmp_path: Path) -> None:
    run = written(tmp_path / "run", steps=1)
    with pytest.raises(UserError, match=r"rollout\.save=true"):
        export(run, tmp_path / "out", (2, 3))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export(run, tmp_path / "out")
