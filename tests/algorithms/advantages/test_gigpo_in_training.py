"""GiGPO in runs: turns through replay, kills, stored rollouts and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from rlkit.batch import Sample
from rlkit.interfaces import STATE, TURN, TURN_REWARD, Observation
from rlkit.stored.read import StoredRollouts
from tests.rollout.echo import Echo
from tests.rollout.test_turns_in_training import equal, steady, trained


class Paying(Echo):
    """Gives rewards per turn, which sum up to its reward; may be killed in the middle."""

    alive: ClassVar[int] = -1

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        Paying.alive -= 1
        if Paying.alive == 0:
            raise KeyboardInterrupt
        return super().step(episodes, turns)

    def turn_rewards(self, episodes: Sequence[int]) -> list[float | None]:
        return [0.25] * len(episodes)


def run_of(folder: Path, **fields: Any) -> Any:
    return trained(
        folder,
        *("algorithm=gigpo", "buffer=fifo", "buffer.replay_fraction=0.5", "rollout.save=true"),
        f"environment={__name__}:Paying",
        **fields,
    )


def told(sample: Sample) -> list[list[float]]:
    """Per token; a response whose only turn was cut has no rewards of turns."""
    none = torch.zeros(len(sample.response_ids))
    names = (TURN, *STATE, TURN_REWARD)
    return [torch.as_tensor(sample.extras.get(name, none)).tolist() for name in names]


@pytest.mark.slow
def test_turns_survive_replay_a_kill_and_a_file(tmp_path: Path) -> None:
    """The run goes on with the same bits, and its stored rollouts say the same of every turn."""
    whole = run_of(tmp_path / "whole")
    assert any(m.get("buffer/fresh_fraction", 1) < 1 for m in whole.metrics), "replayed"
    shares = [m["advantage/shared_states"] for m in whole.metrics if "turns/mean" in m]
    assert len(shares) == 4 and all(0 < share <= 1 for share in shares)
    calls = -1 - Paying.alive
    Paying.alive = calls // 2
    with pytest.raises(KeyboardInterrupt):
        run_of(tmp_path / "killed")
    Paying.alive = -1
    again = run_of(tmp_path / "killed", resume="auto")
    assert equal(whole, again) and steady(whole) == steady(again)
    kept = []
    for folder in ("whole", "killed"):
        stored = StoredRollouts(str(tmp_path / folder))
        kept.append([s for g in stored.groups(range(len(stored))) for s in g.samples])
    assert [told(s) for s in kept[0]] == [told(s) for s in kept[1]]
    several = [s for s in kept[0] if s.extras["turns"] > 1]
    assert several
    for sample in several:
        turn, high, low, earned = told(sample)
        assert [number > 0 for number in turn] == sample.loss_mask.tolist()
        pairs = dict(zip(turn, zip(high, low, strict=True), strict=True))
        assert max(turn) == sample.extras["turns"] and len(pairs) == max(turn) + 1
        assert sum(earned) in (0.25 * max(turn), 0.25 * (max(turn) - 1)), "a cut turn earns nothing"
