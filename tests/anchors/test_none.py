"""No anchor: nothing is held, and nothing is read."""

from __future__ import annotations

import pytest
import torch

from anchors.none import NoAnchor
from rlkit.interfaces import AnchorConfig
from rlkit.testing.losses import examples
from tests.anchors.running import Run, resumed


def test_no_copy_is_made_and_no_reference_is_asked_for() -> None:
    run = Run(NoAnchor(AnchorConfig(beta=0.5)))
    assert run.steps(3) == [{}, {}, {}] and run.policy.copies == 0
    assert resumed(run).steps(2) == [{}, {}]
    with pytest.raises(KeyError, match="base"):
        run.anchor.reference("base")


def test_a_coefficient_has_no_effect() -> None:
    logp, batch = examples(frozenset())
    assert torch.equal(NoAnchor(AnchorConfig(beta=0.5)).penalty(logp, batch, 1), logp * 0)
