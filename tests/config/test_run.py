"""The run's own settings: bounds, cross-checks, the learning rate's course."""

from __future__ import annotations

import pytest

from rlkit.config.run import TrainConfig


def test_learning_rates_by_hand() -> None:
    def rates(kind: str) -> list[float]:
        train = TrainConfig(steps=6, warmup_steps=2, lr_scheduler_type=kind)
        return [train.learning_rate_factor(step) for step in range(1, 7)]

    assert rates("constant") == [0.5, 1, 1, 1, 1, 1]
    assert rates("linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert rates("cosine") == pytest.approx([0.5, 1, 1, 0.8535534, 0.5, 0.1464466])
