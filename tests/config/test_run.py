"""The run's own settings: bounds, cross-checks, the learning rate's course."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rlkit.config.run import EvalConfig, ModelConfig, RunConfig, TrainConfig


def test_learning_rates_by_hand() -> None:
    def rates(kind: str) -> list[float]:
        train = TrainConfig(steps=6, warmup_steps=2, lr_scheduler_type=kind)
        return [train.learning_rate_factor(step) for step in range(1, 7)]

    assert rates("constant") == [0.5, 1, 1, 1, 1, 1]
    assert rates("linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert rates("cosine") == pytest.approx([0.5, 1, 1, 0.8535534, 0.5, 0.1464466])


def test_the_last_step_of_a_falling_rate_is_not_zero() -> None:
    for kind in ("linear", "cosine"):
        train = TrainConfig(steps=4, lr_scheduler_type=kind)
        assert train.learning_rate_factor(1) == 1 and train.learning_rate_factor(4) > 0
        assert train.learning_rate_factor(5) == pytest.approx(0)


def test_a_warm_up_as_long_as_the_run_only_rises() -> None:
    train = TrainConfig(steps=4, warmup_steps=4, lr_scheduler_type="linear")
    assert [train.learning_rate_factor(step) for step in range(1, 5)] == [0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(("prompts", "minibatches", "legal"), [(6, 3, True), (6, 4, False)])
def test_minibatches_divide_the_prompts(prompts: int, minibatches: int, legal: bool) -> None:
    settings = {"prompts_per_step": prompts, "minibatches": minibatches}
    if legal:
        assert TrainConfig(**settings).minibatches == minibatches
        return
    with pytest.raises(ValueError, match="train.prompts_per_step=6 is not divisible by"):
        TrainConfig(**settings)


def test_pass_at_k_needs_k_samples() -> None:
    assert EvalConfig(samples=4, k=4).k == 4
    with pytest.raises(ValueError, match="eval.k=5 needs at least as many eval.samples .now 4"):
        EvalConfig(samples=4, k=5)


@pytest.mark.parametrize(
    ("device", "legal"),
    [("auto", True), ("cpu", True), ("cuda:11", True), ("cuda:", False), ("gpu", False)],
)
def test_devices(device: str, legal: bool) -> None:
    if legal:
        assert ModelConfig(device=device).device == device
        return
    with pytest.raises(ValueError, match="String should match pattern"):
        ModelConfig(device=device)


@pytest.mark.parametrize(
    "settings",
    [
        {"output_dir": ""},
        {"output_dir": "x", "seed": -1},
        {"output_dir": "x", "stages": [{"steps": 0}]},
        {"output_dir": "x", "train": {"learning_rate": 0}},
        {"output_dir": "x", "train": {"learning_rate": float("nan")}},
        {"output_dir": "x", "checkpoint": {"keep": 0}},
        {"output_dir": "x", "stepz": 1},
    ],
)
def test_what_no_run_can_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RunConfig.model_validate(settings)


@pytest.mark.parametrize("key", ["dtype", "autocast"])
def test_float16_is_refused_with_what_to_use_instead(key: str) -> None:
    """Without loss scaling Adam's 1e-8 and the squares of gradients are 0 in it."""
    with pytest.raises(ValidationError, match="float16 cannot train.*; use bfloat16"):
        ModelConfig.model_validate({key: "float16"})
    assert torch.tensor(1e-8, dtype=torch.float16) == 0


def test_the_effective_sample_size_of_a_full_rate_is_a_share() -> None:
    assert TrainConfig().lr_ess is None and not TrainConfig().reads
    assert TrainConfig(lr_ess=1).reads == {"behavior"}
    for wrong in (0, 1.1):
        with pytest.raises(ValidationError, match="lr_ess"):
            TrainConfig(lr_ess=wrong)


def test_patterns_of_learning_rates_are_checked() -> None:
    assert TrainConfig().lr_scale is None
    with pytest.raises(ValidationError, match=r"'a\(' is not a regular expression"):
        TrainConfig(lr_scale={"a(": 2})
    with pytest.raises(ValidationError, match="greater than 0"):
        TrainConfig(lr_scale={"a": 0})
