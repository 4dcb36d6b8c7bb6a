"""The trust-region mask by hand: the worst token decides."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rlkit.registry import build
from tests.algorithms.corrections.hand import MASK, apply, batch_of, tensor

K = tensor([1.0, 2.0, 99.0], [0.9, 1.0, 1.1])
"""prox / behavior; the third token of the first response is masked."""


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"delta": 0.3}, [False, True]),  # 2 - 1 - log 2 = 0.307
        ({"delta": 0.31}, [True, True]),
        ({"delta": 0.235, "estimator": "k2"}, [False, True]),  # log(2)^2 / 2 = 0.240
        ({"delta": 0.245, "estimator": "k2"}, [True, True]),
        ({"delta": 0.005}, [False, False]),  # 0.9 - 1 - log 0.9 = 0.00536
        ({"delta": 0.0054}, [False, True]),
    ],
)
def test_a_response_leaves_by_its_worst_token(fields: dict[str, Any], rows: list[bool]) -> None:
    logp, batch = batch_of(K)
    out = apply(build("correction", "trm", **fields), logp, batch)
    kept = torch.tensor(rows)[:, None]
    assert torch.equal(out.batch.mask, MASK & kept)
    assert torch.equal(out.weight, kept.double().expand(2, 3))


def test_demonstrations_stay_and_nothing_overflows() -> None:
    far = torch.full((2, 3), math.exp(300.0), dtype=torch.float64)
    logp, batch = batch_of(far, expert=torch.tensor([True, False]))
    out = apply(build("correction", "trm"), logp, batch)
    assert out.batch.mask.any(-1).tolist() == [True, False] and out.weight.isfinite().all()
