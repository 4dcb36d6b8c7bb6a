"""The off-policy sequence mask by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.registry import build
from rlkit.testing import check_correction
from tests.algorithms.corrections.hand import ONES, batch_of, tensor, weight_of


def moved(advantage: Tensor, **fields: Any) -> tuple[Tensor, LossBatch]:
    """prox / behavior = e^0.18; pi / prox = e^-0.3 in the first response and 1 in the second."""
    k = torch.full((2, 3), math.exp(0.18), dtype=torch.float64)
    r = tensor([-0.3] * 3, [0] * 3).exp()
    return batch_of(k, r, advantage=advantage, **fields)


@pytest.mark.parametrize(
    ("fields", "out"),
    [
        ({"delta": 0.05}, True),
        ({"delta": 0.15}, False),
        ({"delta": 0.25, "reference": "prox"}, True),
        ({"delta": 0.35, "reference": "prox"}, False),
        ({}, True),
    ],
)
def test_opsm_leaves_out_negatives_the_policy_has_left(fields: dict[str, Any], out: bool) -> None:
    """mean log(behavior / pi) = 0.12 and mean log(prox / pi) = 0.3 in the first response."""
    logp, batch = moved(-torch.ones(2, 3).double())
    expected = [[0.0] * 3 if out else ONES[0], ONES[1]]
    assert weight_of("opsm", logp, batch, **fields).tolist() == expected


def test_opsm_never_masks_what_is_not_negative() -> None:
    """By token: only the negative ones of a response that has been left."""
    logp, batch = moved(tensor([1, -1, 0], [0, -1, 1]))
    batch = replace(batch, mask=torch.ones(2, 3).bool())
    found = weight_of("opsm", logp, batch, delta=0.0)
    assert found.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_opsm_reads_what_it_is_set_to() -> None:
    for reference in ("behavior", "prox"):
        part = build("correction", "opsm", reference=reference, delta=0.01)
        assert part.needs == {reference}
        check_correction(part)


def test_opsm_keeps_demonstrations_unless_it_looks_at_prox() -> None:
    expert = torch.tensor([True, False])
    logp, batch = moved(-torch.ones(2, 3).double(), expert=expert)
    assert weight_of("opsm", logp, batch, delta=0.0)[0].tolist() == [1, 1, 0]
    found = weight_of("opsm", logp, batch, delta=0.0, reference="prox")
    assert found[0].tolist() == [0, 0, 0]
