"""What trackers are shown of a step's responses, and that it costs nothing if none asks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.batch import Group, Sample, Score
from rlkit.models.policy import Policy
from rlkit.training import tracked
from rlkit.training.tracked import with_ratios
from rlkit.training.trainer import Trainer
from tests.sessions import Listening, make_session
from tests.tiny import make_prompts


class Asking(Listening):
    """Wants the responses of the second step."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[int, Sequence[Mapping[str, Any]]]] = []
        self.checkpoints: list[tuple[int, Path]] = []

    def wants_samples(self, step: int) -> bool:
        return step == 2

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.shown.append((step, rows))

    def log_checkpoint(self, step: int, path: Path) -> None:
        assert (path / "manifest.json").is_file()
        self.checkpoints.append((step, path))


def response(number: int, source: str = "policy") -> Sample:
    """Three tokens, the second of them not the policy's own."""
    return Sample(
        sample_id=number,
        prompt_id="train-0",
        response_ids=torch.tensor([3, 4, 5]),
        loss_mask=torch.tensor([True, False, True]),
        behavior_logp=torch.log(torch.tensor([0.5, 0.5, 0.25])),
        policy_version=torch.tensor([2, 2, 2], dtype=torch.int32),
        reward=0.5,
        rewards={"one": 0.5},
        finish_reason="stop",
        source=source,
        step=2,
        extras={},
    )


def test_a_row_has_the_means_over_the_policys_own_tokens(policy: Policy) -> None:
    (prompt,) = make_prompts(policy, ["1+1="])
    samples = [response(7), response(8), response(-1, source="expert")]
    logp = torch.log(torch.tensor([0.25, 0.001, 0.5]))
    scores = {n: Score(logp=logp, entropy=0.0, advantage=-1.5) for n in (7, -1)}
    rows = [{"prompt": "1+1=", "tokens": 3}] * 3
    groups = [Group(prompt=prompt, samples=samples)]
    first, skipped, expert = with_ratios(rows, groups, scores)
    assert first["prompt"] == "1+1=" and first["length"] == 3
    assert math.isclose(first["ratio"], (0.25 / 0.5 + 0.5 / 0.25) / 2, rel_tol=1e-6)
    assert "ratio" not in skipped and "ratio" not in expert


def test_trackers_get_what_they_ask_for(policy: Policy, tmp_path: Path) -> None:
    asking = Asking()
    Trainer(make_session(policy, tmp_path, trackers={"asking": asking})).run()
    ((step, rows),) = asking.shown
    assert step == 2 and len(rows) == 4
    assert all({"prompt", "response", "advantage", "ratio"} <= row.keys() for row in rows)
    assert [step for step, _ in asking.logged] == [0, 1, 2, 2]
    assert asking.checkpoints == [(2, tmp_path / "checkpoint-2")]


def test_nothing_is_computed_if_no_tracker_asks(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked, "with_ratios", pytest.fail)
    Trainer(make_session(policy, tmp_path)).run()
