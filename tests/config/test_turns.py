"""The limits of an episode."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rlkit.config.run import RunConfig
from rlkit.config.turns import TurnsConfig


def test_the_limits_have_bounds() -> None:
    for field in ("max", "max_observation_tokens", "max_calls", "seconds", "concurrency"):
        with pytest.raises(ValidationError, match="greater than"):
            TurnsConfig.model_validate({field: 0})
    with pytest.raises(ValidationError, match="max_turns"):
        TurnsConfig.model_validate({"max_turns": 3})


def test_a_run_has_them_and_no_tools_by_default() -> None:
    config = RunConfig(output_dir="x")
    assert config.turns == TurnsConfig() and config.tools == ()
