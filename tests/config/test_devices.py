"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from rlkit.config.devices import device_of
from rlkit.errors import UserError


def test_a_device_that_is_not_there_is_refused_under_the_settings_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert device_of("cpu", "a.b") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto", "a.b") == torch.device("cpu")
    with pytest.raises(UserError, match=r"a\.b=cuda:1, but this machine.* set a\.b=cpu or auto"):
        device_of("cuda:1", "a.b")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of("auto", "a.b") == torch.device("cuda")
    with pytest.raises(UserError, match=r"a\.b=cuda:1, but there are only 1 CUDA devices"):
        device_of("cuda:1", "a.b")
