"""The sum of a loss's terms is the mean that its aggregation names."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from rlkit.errors import UserError
from rlkit.interfaces import LossConfig
from rlkit.training.loss_value import loss_value
from tests.training.objectives import AGGREGATIONS, Named, Surrogate, make_batch


def by_hand(aggregation: str, values: Tensor, mask: Tensor, rows: float, length: float) -> float:
    total = 0.0
    for i in range(len(values)):
        valid = values[i][mask[i]]
        if len(valid) == 0:
            continue
        total += {
            "token-mean": valid.sum() / mask.sum(),
            "token-sum": valid.sum(),
            "seq-mean-token-mean": valid.mean() / rows,
            "seq-mean-token-sum": valid.sum() / rows,
            "seq-mean-token-sum-norm": valid.sum() / rows / length,
        }[aggregation].item()
    return total


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("count_empty", [False, True])
def test_aggregations_by_their_definition(aggregation: Any, count_empty: bool) -> None:
    logp, batch = make_batch()
    loss = Surrogate(LossConfig(aggregation=aggregation, count_empty_rows=count_empty))
    values = -(logp - batch.behavior_logp).exp() * batch.advantage
    rows = 7.0 if count_empty else 6.0
    value, _ = loss_value(loss, logp, batch, max_completion_length=9)
    assert value.item() == pytest.approx(
        by_hand(aggregation, values, batch.mask, rows, 9.0), rel=1e-12
    )


def test_two_terms_of_one_name_are_refused_since_they_would_share_a_denominator() -> None:
    logp, batch = make_batch()
    loss = Named()
    loss.names = ("pg", "pg")
    with pytest.raises(UserError, match="two terms of the loss are called 'pg'; rename one"):
        loss_value(loss, logp, batch)
