"""Bounds of what a run leaves on disk."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlkit.config.saving import CheckpointConfig, CompletionsConfig


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (CheckpointConfig, {"every": 0}),
        (CheckpointConfig, {"keep": 0}),
        (CheckpointConfig, {"on_error": "ignore"}),
        (CompletionsConfig, {"every": 0}),
        (CompletionsConfig, {"max_per_step": 0}),
        (CompletionsConfig, {"tokens_per_step": -1}),
    ],
)
def test_nonsense_is_refused(config: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**fields)


def test_null_switches_off() -> None:
    assert CheckpointConfig(every=None).every is None
    assert CompletionsConfig(every=None, max_per_step=None).every is None
