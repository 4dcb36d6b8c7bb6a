"""The sum of a loss's terms is the mean that its aggregation names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import Term
from rlkit.errors import UserError
from rlkit.interfaces import LossConfig
from rlkit.training.loss_value import loss_value
from rlkit.training.objective import Objective
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


@pytest.mark.parametrize("per_response", [False, True])
def test_a_term_over_some_responses_counts_its_own_empty_ones(per_response: bool) -> None:
    """Of responses of 1, 0, 2 and 0 tokens the term is over the first two."""
    mask = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 0]]).bool()
    rows = torch.tensor([True, True, False, False])
    ones = torch.ones(4) if per_response else torch.ones(4, 2)
    term = Term(name="own", value=ones, mask=mask & rows[:, None], rows=rows)
    for counted, expected in ((False, (1, 1.0)), (True, (2, 1.0 if per_response else 0.5))):
        config = LossConfig(aggregation="seq-mean-token-mean", count_empty_rows=counted)
        objective = Objective(Surrogate(config))
        found = objective.counts([term])
        assert found["own"][1] == expected[0]
        assert objective.reduce([term], found) == pytest.approx(expected[1])
