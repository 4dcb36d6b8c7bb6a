"""A stock of whole groups: uses, ages, room, resuming."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlkit.registry import build
from tests.buffers.test_replay import Cycle, check_real_run, check_resumes, one


@pytest.mark.parametrize("name", ["prioritized", "value_decay"])
def test_a_stock_counts_uses_and_gives_whole_groups_once(name: str) -> None:
    buffer = build("buffer", name, replay_fraction=0.5)
    cycle, uses = Cycle(buffer, 6), Counter[int]()
    for step in range(1, 12):
        fresh, trained = cycle.step(step)
        assert trained[:3] == fresh and len(trained) == (3 if step == 1 else 6)
        uses.update(g.samples[0].sample_id for g in trained)
        assert all(len(g.samples) == 4 for g in trained)
        assert len({g.samples[0].sample_id for g in trained}) == len(trained)
        rows = buffer.rows
        assert rows.listed("uses") == [uses[name] for name in rows["first"]]
        assert all(rows["last_used"] >= [g.samples[0].step for g in buffer.groups])
        assert buffer.stats()["groups"] == len(buffer) / 4
        assert buffer.stats()["uses_max"] == max(rows["uses"])


@pytest.mark.parametrize("name", ["prioritized", "value_decay"])
def test_a_stock_forgets_what_is_too_old(name: str) -> None:
    buffer = build("buffer", name, replay_fraction=0.8, max_age=2, **no_limit(name))
    cycle = Cycle(buffer, 20)
    for step in range(1, 8):
        trained = cycle.step(step)[1]
        ages = {step - g.samples[0].step for g in trained}
        assert ages == set(range(min(step, 3)))
        assert {g.samples[0].step for g in buffer.groups} == {step, step - 1} - {0}


@pytest.mark.parametrize("name", ["prioritized", "value_decay"])
def test_a_stock_may_replay_what_is_too_old_where_nothing_younger_is_left(name: str) -> None:
    """One group per step; from step 4 on two of them are young, whatever their priorities."""
    for share, ages in ((0.5, {1, 2}), (0.8, {1, 2, 3, 4})):
        fields: dict[str, Any] = {"replay_fraction": share, "max_age": 2, "over_age": "keep"}
        buffer = build("buffer", name, **fields, **no_limit(name))
        for step in (1, 2, 3, 4):
            buffer.add([one(10 * step, step)], step)
        batch = round(len(ages) / share)
        assert {5 - g.samples[0].step for g in buffer.build([], batch, 5)} == ages
        buffer.add([], 9)
        assert len(buffer.groups) == 4, "what is old is not forgotten"


def no_limit(name: str) -> dict[str, Any]:
    return {"use_limit": None} if name == "value_decay" else {}


@pytest.mark.parametrize("name", ["prioritized", "value_decay"])
@pytest.mark.parametrize("fields", [{}, {"capacity": 7, "replay_fraction": 0.6}, {"max_age": 3}])
def test_a_stock_resumes(name: str, fields: dict[str, Any]) -> None:
    check_resumes(
        lambda: build("buffer", name, **fields), Cycle(build("buffer", name, **fields), 6)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prioritized", "value_decay"])
def test_a_stock_trains(name: str, tmp_path: Path) -> None:
    rows = check_real_run(f"buffer={name}", cwd=tmp_path)
    assert rows[0]["buffer/fresh_fraction"] == 1
    assert rows[1]["buffer/fresh_fraction"] == pytest.approx(0.5)
    assert rows[1]["buffer/age_max"] == 1
    assert rows[2]["buffer/uses_max"] >= 2
