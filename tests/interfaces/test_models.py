"""What a part that no run has opened can have of models."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.interfaces.models import ModelSource, no_model


def test_only_the_policy_itself() -> None:
    assert no_model(ModelSource(path=None, setting="anchor.path")) is None
    with pytest.raises(UserError, match=r"^a/b is loaded when a run opens the part"):
        no_model(ModelSource(path="a/b", setting="anchor.path"))
