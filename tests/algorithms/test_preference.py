"""Preference losses: which responses are paired, and the losses on a pair's margin."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.preference import best_and_worst
from rlkit.batch import LossBatch, PolicyTerms
from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad

NAMES = ("online_dpo", "vdpo", "vipo")


def double(x: Any) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def group_of(rewards: list[float], log_ratio: Any, **fields: Any) -> tuple[Tensor, LossBatch]:
    """One group whose log-ratios to the reference are these, [B, T]; the rest may be anything."""
    delta = double(log_ratio)
    logp = -1 - torch.arange(delta.numel()).view_as(delta).double() / 7
    anything = examples(frozenset({"anchor:base"}))[1].rows(
        torch.zeros(len(delta), dtype=torch.long)
    )
    unknown = torch.full_like(delta, torch.nan)
    batch = replace(
        anything,
        mask=torch.ones_like(delta, dtype=torch.bool),
        advantage=unknown,
        behavior_logp=unknown,
        prox_logp=unknown,
        anchor_logp={"base": logp - delta},
        reward=double(rewards),
    )
    return logp, replace(batch, **fields)


def pairs_of(logp: Tensor, batch: LossBatch) -> list[float]:
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    found: list[float] = build("loss", "online_dpo")(policy, batch).metrics["pair"].tolist()
    return found


def slope(name: str, logp: Tensor, batch: LossBatch, **fields: Any) -> tuple[float, float, Tensor]:
    """The loss, and its derivatives with respect to the tokens of the chosen response (row 0)."""
    value, gradient = value_and_grad(build("loss", name, **fields), logp, batch)
    return value.item(), gradient[0, 0].item(), gradient


# ---- pairs


def test_the_best_and_the_worst_of_each_group_are_a_pair() -> None:
    """Rows of several groups may come in any order; a group of equal rewards has no pair."""
    logp, batch = group_of([0.5, 1.0, 0.2, 3.0, 0.1, 2.0, 3.0], torch.zeros(7, 1))
    batch = replace(batch, group=torch.tensor([4, 9, 4, 2, 4, 9, 2]))
    assert pairs_of(logp, batch) == [1, -1, 0, 0, -1, 1, 0]


def test_a_response_without_valid_tokens_is_in_no_pair() -> None:
    logp, batch = group_of([2.0, 1.0, 0.0, -1.0], torch.zeros(4, 2))
    mask = batch.mask.clone()
    mask[torch.tensor([0, 3])] = False
    assert pairs_of(logp, replace(batch, mask=mask)) == [0, 1, -1, 0]
    assert pairs_of(logp, replace(batch, mask=torch.zeros_like(mask))) == [0, 0, 0, 0]


def test_of_equal_rewards_the_first_is_the_best_and_the_last_the_worst() -> None:
    """Two right and two wrong answers, in each order; responses without tokens are passed over."""
    for rewards, pair in (
        ([1.0, 1.0, 0.0, 0.0], [1, 0, 0, -1]),
        ([0.0, 1.0, 0.0, 1.0], [0, 1, -1, 0]),
        ([0.0, 0.0, 1.0, 1.0], [0, -1, 1, 0]),
    ):
        assert pairs_of(*group_of(rewards, torch.zeros(4, 1))) == pair
    logp, batch = group_of([1.0, 1.0, 0.0, 0.0], torch.zeros(4, 1))
    mask = torch.tensor([[False], [True], [True], [False]])
    assert pairs_of(logp, replace(batch, mask=mask)) == [0, 1, -1, 0]


@pytest.mark.parametrize("name", NAMES)
def test_a_group_of_equal_rewards_can_be_a_pair_of_its_first_and_its_last_response(
    name: str,
) -> None:
    """As in TRL: it has the loss of the pair [1, 0]; votes count half each. One response has none.

    A group of its own beside a pair halves the pair's share.
    """
    logp, batch = group_of([1.0, 1.0, 1.0], [[2.0], [9.0], [0.5]])
    value, gradient = value_and_grad(build("loss", name, equal_rewards="pair"), logp, batch)
    h, beta = 1.5, 0.1
    certain, even = -math.log(sigmoid(beta * h)), -math.log(sigmoid(beta * h)) + beta * h / 2
    expected = {"online_dpo": certain, "vdpo": even, "vipo": h**2}
    assert value.item() == pytest.approx(expected[name])
    assert gradient[0, 0] == -gradient[2, 0] != 0 and gradient[1, 0] == 0
    one = batch.rows(torch.tensor([0]))
    assert value_and_grad(build("loss", name, equal_rewards="pair"), logp[:1], one)[0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_without_a_pair_there_is_no_loss(name: str) -> None:
    logp, batch = group_of([1.0, 1.0], torch.ones(2, 2))
    value, _, gradient = slope(name, logp, batch)
    assert value == 0 and (gradient == 0).all()
    assert not torch.stack(best_and_worst(batch)).any()


# ---- losses


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_over_pairs_and_only_pairs_have_a_gradient(name: str) -> None:
    """Two groups: the loss of both together is the mean of each alone, whatever the lengths."""
    logp, batch = group_of([1.0, 0.0, 0.5, 0.0, 1.0, 0.2], torch.arange(18).view(6, 3) / 10)
    mask = torch.arange(3) < torch.tensor([3, 1, 2, 2, 3, 1])[:, None]
    batch = replace(batch, mask=mask, group=torch.tensor([0, 0, 0, 1, 1, 1]))
    value, gradient = value_and_grad(build("loss", name), logp, batch)
    alone = [
        value_and_grad(build("loss", name), logp[i], batch.rows(i))
        for i in (torch.tensor([0, 1]), torch.tensor([3, 4]))
    ]
    torch.testing.assert_close(value, (alone[0][0] + alone[1][0]) / 2)
    torch.testing.assert_close(gradient[:2], alone[0][1] / 2)
    torch.testing.assert_close(gradient[3:5], alone[1][1] / 2)
    assert (gradient[torch.tensor([2, 5])] == 0).all()


LOG_RATIO = [[1.0, 2.0, 1.0], [1.0, -1.0, 0.5]]
"""Sums 4 and 0.5, so h = 3.5; means 4/3 and 1/6, so h = 7/6."""


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_margin_and_the_ratio_are_to_the_reference() -> None:
    logp, batch = group_of([1.0, 0.0], LOG_RATIO)
    _, metrics = loss_value(build("loss", "online_dpo"), logp, batch)
    assert metrics["margin"] == pytest.approx(3.5) and metrics["pair"] == 0
    assert metrics["ratio_mean"] == pytest.approx(double(LOG_RATIO).exp().mean().item())
    clamped = loss_value(build("loss", "online_dpo", log_ratio_clamp=0.5), logp, batch)[1]
    assert clamped["ratio_max"] == pytest.approx(math.exp(0.5))
    assert clamped["margin"] == pytest.approx(3.5), "nothing overflows, so nothing is clamped"
    assert build("loss", "online_dpo").needs == {"anchor:base"}


def test_the_accuracy_is_the_share_of_positive_margins() -> None:
    logp, batch = group_of([1.0, 0.0, 1.0, 0.0], [[2.0], [1.0], [0.0], [1.0]])
    batch = replace(batch, group=torch.arange(4) // 2)
    for rewards, share in (([1, 0, 1, 0], 0.5), ([1, 0, 0, 1], 1.0), ([0, 1, 1, 0], 0.0)):
        ordered = replace(batch, reward=double(rewards).double())
        _, metrics = loss_value(build("loss", "online_dpo"), logp, ordered)
        assert metrics["accuracy"] == share


def test_extreme_margins_saturate() -> None:
    logp, batch = group_of([1.0, 0.0], [[1e4], [-1e4]])
    assert slope("online_dpo", logp, batch)[:2] == (0, 0)
    value, push, _ = slope("online_dpo", logp, replace(batch, reward=-batch.reward))
    assert value == pytest.approx(2e3)
    assert push == pytest.approx(0.1), "row 0 is now the rejected one"


VOTES = [1.0, 0.0, 1.0, 0.5, 1.0]
"""Three votes for the best, one for the worst; the response in between has none."""


@pytest.mark.parametrize(("prior", "p"), [(1.0, 4 / 6), (0.0, 3 / 4), (3.0, 6 / 10), (1e9, 0.5)])
def test_votes_set_how_sure_the_target_is(prior: float, p: float) -> None:
    """VDPO is a cross-entropy with target p, and VIPO's margin aims at (2p - 1) / (2 beta).

    A prior of 0 is the share of votes, a large one makes the two answers alike.
    """
    logp, batch = group_of(VOTES, [[2.0]] * 5)
    base = {"base": batch.anchor_logp["base"] - double([[1.0], [0.0], [1.0], [9.0], [1.0]])}
    batch = replace(batch, anchor_logp=base)  # h = 1, whichever of the best is chosen
    for beta in (0.1, 0.7):
        s = sigmoid(beta)
        cross_entropy = -p * math.log(s) - (1 - p) * math.log(1 - s)
        found = {
            n: slope(n, logp, batch, votes="group", prior=prior, beta=beta)[0]
            for n in ("vdpo", "vipo")
        }
        assert found["vdpo"] == pytest.approx(cross_entropy)
        assert found["vipo"] == pytest.approx((1 - (2 * p - 1) / (2 * beta)) ** 2)


@pytest.mark.parametrize(
    ("name", "rest"), [("vdpo", math.log(2) / 0.1), ("vipo", (2 * 2 / 3 - 1) / 0.2)]
)
def test_the_margin_rests_where_the_target_is_met(name: str, rest: float) -> None:
    """Two against none but the one worst: p = 2/3 with prior 0, beta h = logit p for VDPO."""
    logp, batch = group_of([1.0, 0.0, 1.0], [[rest], [0.0], [rest]])
    gradient = slope(name, logp, batch, votes="group", prior=0.0)[2]
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    beyond = replace(
        batch, anchor_logp={"base": batch.anchor_logp["base"] - double([[1], [0], [1]])}
    )
    assert slope(name, logp, beyond, votes="group", prior=0.0)[2][:, 0].tolist() != [0, 0, 0]


@pytest.mark.parametrize(("prior", "p"), [(0.0, 1.0), (1.0, 2 / 3), (0.5, 0.75)])
def test_a_verifiers_reward_is_one_vote(prior: float, p: float) -> None:
    """p = (1 + c) / (1 + 2c), however many responses are wrong; without a prior it is certain, and
    the soft losses are DPO and IPO.
    """
    logp, batch = group_of([1.0, 0.0, 0.0, 0.0], [[2.0]] * 4)
    base = {"base": batch.anchor_logp["base"] - double([[1.0], [0.0], [0.0], [0.0]])}
    batch = replace(batch, anchor_logp=base)
    s = sigmoid(0.1)
    found = {n: slope(n, logp, batch, prior=prior)[0] for n in ("vdpo", "vipo")}
    assert found["vdpo"] == pytest.approx(-p * math.log(s) - (1 - p) * math.log(1 - s))
    assert found["vipo"] == pytest.approx((1 - (2 * p - 1) / 0.2) ** 2)
    if prior == 0:
        for name, kind in {"vdpo": "sigmoid", "vipo": "ipo"}.items():
            assert found[name] == slope("online_dpo", logp, batch, loss_type=kind)[0]


def test_rewards_that_count_votes_set_the_target_and_negative_ones_are_none() -> None:
    """Three votes against one: p = 3/4 without a prior. -1 is no vote: certain."""
    for rewards, p in (([3.0, 1.0], 0.75), ([3.0, -1.0], 1.0)):
        logp, batch = group_of(rewards, [[1.0], [0.0]])
        found = slope("vipo", logp, batch, prior=0.0)[0]
        assert found == pytest.approx((1 - (2 * p - 1) / 0.2) ** 2)


def beta_moment(a: int, b: int) -> Fraction:
    """The integral of x^a (1 - x)^b over [0, 1], term by term."""
    return sum(
        (Fraction((-1) ** k * math.comb(b, k), a + k + 1) for k in range(b + 1)), Fraction(0)
    )


@pytest.mark.parametrize(("won", "lost"), [(7, 2), (1, 0), (5, 5), (40, 3)])
@pytest.mark.parametrize("prior", [1, 2, 5])
def test_the_target_is_the_mean_of_the_posterior_of_both_counts(
    won: int, lost: int, prior: int
) -> None:
    """The estimate of least squared error under a Beta(c, c) prior and binomial votes, exactly:
    E[x | votes] = the integral of x times the likelihood times the prior over that without x.
    """
    ups, downs = won + prior - 1, lost + prior - 1
    mean = beta_moment(ups + 1, downs) / beta_moment(ups, downs)
    assert mean == Fraction(won + prior, won + lost + 2 * prior)
    _, batch = group_of([won, lost], [[0.3], [0.1]])
    sides = torch.tensor([True, False]), torch.tensor([False, True])
    loss = build("loss", "vdpo", prior=prior)
    assert loss.target(batch, *sides).tolist() == [float(mean)] * 2


def test_votes_count_valid_responses_alone() -> None:
    logp, batch = group_of([1.0, 0.0, 1.0], [[1.0], [0.0], [1.0]])
    mask = double([[1], [1], [0]]).bool()
    found = slope("vipo", logp, replace(batch, mask=mask), votes="group", prior=0.0)[0]
    assert found == pytest.approx(1.0), "one vote each: p = 1/2 and the margin of 1 aims at 0"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("online_dpo", {"beta": 0.0}),
        ("vdpo", {"prior": -1}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)
