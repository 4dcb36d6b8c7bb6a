"""The settings of what an evaluation is compared with."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rlkit.config.against import Against


def test_a_reward_without_responses_compares_nothing() -> None:
    assert Against(responses="solution", reward="gold").reward == "gold"
    with pytest.raises(ValidationError, match=r"eval\.against\.responses, which is not set"):
        Against(reward="gold")
