"""TF32 and deterministic algorithms: as asked for during a run, as before after it."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from rlkit.config.run import ModelConfig
from rlkit.models.numerics import WORKSPACE, numerics


def flags() -> dict[str, Any]:
    return {
        "matmul": torch.backends.cuda.matmul.allow_tf32,
        "convolution": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "workspace": os.environ.get(WORKSPACE),
    }


@pytest.mark.parametrize("asked", [False, True])
def test_both_are_as_asked_inside_and_as_before_afterwards(asked: bool) -> None:
    before = flags()
    with numerics(ModelConfig(tf32=asked, deterministic=asked)):
        expected = dict.fromkeys(("matmul", "convolution", "deterministic"), asked)
        inside = flags()
        assert inside | expected == inside
        assert inside["workspace"] == (":4096:8" if asked else before["workspace"])
    assert flags() == before


def test_what_the_user_had_set_is_back_even_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    before = flags()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    own = flags()
    try:
        with pytest.raises(ValueError, match="oh"), numerics(ModelConfig(deterministic=True)):
            assert not torch.backends.cuda.matmul.allow_tf32
            assert os.environ[WORKSPACE] == ":16:8"
            raise ValueError("oh")
        assert flags() == own
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before["matmul"]
        torch.use_deterministic_algorithms(before["deterministic"], warn_only=before["warns"])
