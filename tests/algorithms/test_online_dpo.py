"""The losses of online DPO: values, gradients, sums of several, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import PolicyTerms
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.test_preference import LOG_RATIO, double, group_of, sigmoid, slope


@pytest.mark.parametrize(
    ("fields", "value", "push"),
    [
        ({}, -math.log(sigmoid(0.35)), -0.1 * sigmoid(-0.35)),
        ({"beta": 2.0}, -math.log(sigmoid(7.0)), -2 * sigmoid(-7.0)),
        (
            {"length_normalize": True},
            -math.log(sigmoid(0.7 / 6)),
            -0.1 * sigmoid(-0.7 / 6) / 3,
        ),
        ({"loss_type": "ipo"}, 1.5**2, 2 * -1.5),
        ({"loss_type": "ipo", "beta": 0.2}, 1.0, 2.0),
        ({"loss_type": "ipo", "length_normalize": True}, (7 / 6 - 5) ** 2, 2 * (7 / 6 - 5) / 3),
        ({"loss_type": "sigmoid_norm"}, -math.log(sigmoid(0.7 / 6)), -0.1 * sigmoid(-0.7 / 6) / 3),
        (
            {"label_smoothing": 0.2},
            -math.log(sigmoid(0.35)) + 0.2 * 0.35,
            0.1 * (sigmoid(0.35) - 0.8),
        ),
    ],
)
def test_online_dpo(fields: dict[str, Any], value: float, push: float) -> None:
    """dL/dh on each token of the chosen response, its negative on the rejected one's."""
    logp, batch = group_of([1.0, 0.0], LOG_RATIO)
    found, _, gradient = slope("online_dpo", logp, batch, **fields)
    assert found == pytest.approx(value)
    torch.testing.assert_close(gradient, double([[push] * 3, [-push] * 3]))
    swapped = slope("online_dpo", logp, replace(batch, reward=-batch.reward), **fields)
    assert swapped[0] != pytest.approx(value), "the rewards rank"


def test_a_sum_of_losses_is_weighted_and_imitates_the_chosen_response_per_token() -> None:
    """MPO: 0.8 sigmoid + 0.2 bco_pair + 1 sft, whose mean is over tokens and not over pairs."""
    logp, batch = group_of([1.0, 0.0, 0.2, 0.9], torch.arange(12).view(4, 3) / 10)
    mask = torch.arange(3) < torch.tensor([3, 2, 1, 1])[:, None]
    batch = replace(batch, mask=mask, group=torch.tensor([0, 0, 1, 1]))
    kinds, weights = ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0]
    whole = value_and_grad(
        build("loss", "online_dpo", loss_type=kinds, loss_weights=weights), logp, batch
    )
    alone = [value_and_grad(build("loss", "online_dpo", loss_type=k), logp, batch) for k in kinds]
    for place in (0, 1):
        parts = [w * found[place] for w, found in zip(weights, alone, strict=True)]
        torch.testing.assert_close(whole[place], sum(parts[1:], parts[0]))
    chosen = [*logp[0].tolist(), logp[3, 0].item()]
    assert alone[2][0].item() == pytest.approx(-sum(chosen) / 4)
    torch.testing.assert_close(alone[2][1][0], double([-0.25] * 3))
    assert (alone[2][1][[1, 2]] == 0).all(), "the rejected responses are not imitated"
    equal = value_and_grad(build("loss", "online_dpo", loss_type=kinds[:2]), logp, batch)[0]
    torch.testing.assert_close(equal, alone[0][0] + alone[1][0])


@pytest.mark.parametrize("kind", ["aot", "aot_unpaired"])
def test_ranked_losses_see_the_whole_minibatch(kind: str) -> None:
    loss = build("loss", "online_dpo", loss_type=kind)
    assert loss.scope == "minibatch" and build("loss", "online_dpo").scope == "group"
    logp, batch = examples(loss.needs)
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    value = loss(policy, batch).terms[0].value
    order = torch.tensor([4, 0, 5, 6, 1, 2, 7, 3])
    again = loss(PolicyTerms(logp=logp[order], entropy=logp), batch.rows(order)).terms[0].value
    paired = loss(policy, batch).metrics["pair"] != 0
    assert sorted(value[paired].tolist()) == pytest.approx(sorted(again[paired[order]].tolist()))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss_type": "kto"}, "loss_type"),
        ({"loss_type": []}, "must name one loss"),
        ({"loss_type": ["ipo", "ipo"]}, "several different ones"),
        ({"loss_weights": [1.0, 2.0]}, "2 entries for 1 losses"),
        ({"loss_type": "ipo", "label_smoothing": 0.1}, "changes nothing in ipo"),
        ({"loss_type": "exo_pair"}, "needs label_smoothing above 0"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"loss_type": ["sigmoid_norm", "hinge"]}, "length_normalize=true"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build("loss", "online_dpo", **fields)
