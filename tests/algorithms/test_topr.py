"""TOPR's tapers by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad

LOG_RATIO = torch.tensor([[0.5, -1.5, 0.0], [0.5, 0.5, 1.0]], dtype=torch.float64)


def two_rows(advantage: list[float]) -> tuple[Tensor, LossBatch]:
    """Two responses of 2 and 3 tokens with these log-ratios: sums -1 and 2, means -1/2 and 2/3."""
    logp, batch = examples(frozenset())
    index = torch.tensor([0, 1])
    logp, batch = logp[index, :3], batch.rows(index)
    return logp, replace(
        batch,
        mask=torch.tensor([[True, True, False], [True, True, True]]),
        advantage=torch.tensor(advantage).double()[:, None].expand(2, 3),
        behavior_logp=logp - LOG_RATIO,
        prox_logp=logp + torch.nan,
    )


def weights(advantage: list[float], **fields: Any) -> Tensor:
    """The weight w of each token, from the gradient -w A / (2 T_i)."""
    logp, batch = two_rows(advantage)
    _, gradient = value_and_grad(build("loss", "topr", **fields), logp, batch)
    share = batch.advantage / (2 * batch.mask.sum(-1, keepdim=True))
    return -gradient / share


E1, E2 = torch.tensor([-1.0, 2.0]).double().exp().tolist()


@pytest.mark.parametrize(
    ("fields", "good", "bad"),
    [
        ({}, [1, 1], [E1, 1]),
        ({"neg_max": None}, [1, 1], [E1, E2]),
        ({"pos_min": 0.0, "pos_max": None, "neg_max": 0.2}, [E1, E2], [0.2, 0.2]),
        ({"pos_min": 0.5, "pos_max": 3.0}, [0.5, 3.0], [E1, 1]),
        ({"ratio_level": "geometric"}, [1, 1], [E1**0.5, 1]),
        ({"neg_max": None, "log_ratio_clamp": 0.5}, [1, 1], [E1**0.5, E1**-0.5]),
    ],
)
def test_sequence_tapers(fields: dict[str, Any], good: list[float], bad: list[float]) -> None:
    """Product ratios e^-1 and e^2; one weight on every token of a response, by the sign of A."""
    for advantage, expected in (([1.0, 2.0], good), ([-1.0, -2.0], bad)):
        found = weights(advantage, **fields)
        assert found[0, :2].tolist() == pytest.approx([expected[0]] * 2)
        assert found[1].tolist() == pytest.approx([expected[1]] * 3)
        assert found[0, 2] == 0


def test_token_tapers_weigh_each_token_by_its_own_ratio() -> None:
    found = weights([-1.0, -1.0], ratio_level="token")
    torch.testing.assert_close(found[0, :2], LOG_RATIO[0, :2].exp().clamp(max=1))
    torch.testing.assert_close(found[1], torch.ones(3).double())


def test_the_weight_is_not_differentiated() -> None:
    """Else the gradient of a bad response would carry log pi; it is -w A / (B T)."""
    logp, batch = two_rows([-1.0, -1.0])
    loss = build("loss", "topr")
    moved = replace(batch, behavior_logp=batch.behavior_logp - 3)
    a, b = value_and_grad(loss, logp, batch)[1], value_and_grad(loss, logp - 3, moved)[1]
    torch.testing.assert_close(a, b)


def test_a_zero_advantage_pushes_nothing_under_either_sign() -> None:
    for sign, weight in ((True, 1.0), (False, (E1 * 2 + 3) / 5)):
        logp, batch = two_rows([0.0, 0.0])
        loss = build("loss", "topr", zero_is_positive=sign)
        assert (value_and_grad(loss, logp, batch)[1] == 0).all()
        assert loss_value(loss, logp, batch)[1]["weight"] == pytest.approx(weight)


def test_tapered_tokens_are_counted_as_clipped() -> None:
    """Bad responses: e^-1 is free, e^2 is cut to 1 on three of the five tokens."""
    logp, batch = two_rows([-1.0, -1.0])
    assert loss_value(build("loss", "topr"), logp, batch)[1]["clip_fraction"] == pytest.approx(
        3 / 5
    )


def test_tapers_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(UserError, match=r"neg_min=2\.0 must not exceed neg_max=1\.0"):
        build("loss", "topr", neg_min=2.0)
