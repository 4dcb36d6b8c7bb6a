"""BAPO's search: its path, its sums, and that it sees the whole minibatch."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.bapo import BapoConfig, Bound, Bounds, Sums, balance_of, balanced_bounds
from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples


def search(ratios: list[float], advantages: list[float], **fields: Any) -> Bounds:
    r, a = (torch.tensor(x, dtype=torch.float64) for x in (ratios, advantages))
    return search_all(r, a, BapoConfig(**fields))


def search_all(ratio: torch.Tensor, advantage: torch.Tensor, c: BapoConfig) -> Bounds:
    balance = balance_of(ratio, advantage, torch.ones_like(ratio), metric=c.metric)
    low, high = (
        Bound(start=start, stop=stop, step=step, partial=c.partial_step)
        for start, stop, step in (
            (c.c_low_start, c.c_low_max, c.low_step),
            (c.c_high_start, c.c_high_max, c.high_step),
        )
    )
    return balanced_bounds(balance, low=low, high=high, order=c.order, target=c.target)


def values(start: float, stop: float, step: float, *, partial: bool) -> list[float]:
    """Where a bound stands from its first step to its last."""
    bound = Bound(start=start, stop=stop, step=step, partial=partial)
    return [bound.after(taken) for taken in range(bound.steps + 1)]


def test_decimal_steps_reach_the_maximum_that_repeated_addition_misses() -> None:
    lows = values(0.6, 0.9, 0.02, partial=False)
    assert len(lows) == 16 and lows[-1] == pytest.approx(0.9, abs=1e-12)
    assert len(values(1.2, 3.0, 0.05, partial=False)) == 37


def test_a_last_shorter_step_only_where_it_is_asked_for() -> None:
    assert values(0.6, 0.7, 0.04, partial=False) == pytest.approx([0.6, 0.64, 0.68])
    assert values(0.6, 0.7, 0.04, partial=True) == pytest.approx([0.6, 0.64, 0.68, 0.7])
    assert values(1.2, 1.2, 0.05, partial=True) == [1.2]


def test_binary_rounding_neither_loses_nor_adds_a_step() -> None:
    """(0.7 - 0.6) / 0.1 is just below 1 in binary, (0.8 - 0.6) / 0.05 just above 4."""
    assert values(0.6, 0.7, 0.1, partial=False) == pytest.approx([0.6, 0.7])
    assert len(values(0.6, 0.8, 0.05, partial=True)) == 5


def test_the_paper_raises_the_upper_bound_first_and_stops_at_the_target() -> None:
    """P = min(4, high), Q = max(1, low) = 1: the fraction reaches 0.6 at high = 1.5."""
    found = search([4.0, 1.0], [1.0, -1.0], prob_weight=False, target=0.6)
    assert (found.low, found.high) == pytest.approx((0.6, 1.5))
    assert found.balance == pytest.approx(0.6)


def test_the_authors_code_raises_the_lower_bound_first_which_cannot_help() -> None:
    """P / Q starts at 1.2 / 1; the lower bound runs to its end before the upper one moves."""
    fields = {"metric": "pos_neg", "order": "low_first", "prob_weight": False, "target": 1.49}
    found = search([4.0, 1.0], [1.0, -1.0], **fields)
    assert (found.low, found.high) == pytest.approx((0.9, 1.5))


def test_a_target_out_of_reach_ends_at_both_maxima_and_one_that_holds_moves_nothing() -> None:
    lost = search([0.5, 0.5], [1.0, -9.0], target=0.9)
    assert (lost.low, lost.high) == pytest.approx((0.9, 3.0))
    held = search([1.0, 1.0], [9.0, -1.0], target=0.9)
    assert (held.low, held.high, held.balance) == pytest.approx((0.6, 1.2, 0.9))


def test_tokens_count_by_the_probability_they_were_sampled_with() -> None:
    """Eq. 8: behavior probabilities 0.1 and 0.4 on equal magnitudes give the balance 0.1 / 0.5."""
    _, batch = examples(frozenset())
    logp = torch.tensor([[0.1, 0.4]]).double().log()
    row = batch.rows(torch.tensor([0]))
    fields = {f: getattr(row, f) for f in row.__dataclass_fields__}
    fields |= {"mask": torch.ones(1, 2, dtype=torch.bool), "behavior_logp": logp, "prox_logp": logp}
    fields |= {"advantage": torch.tensor([[1.0, -1.0]]).double()}
    for weighted, balance in ((True, 0.2), (False, 0.5)):
        loss = build("loss", "bapo", prob_weight=weighted, target=0.01)
        assert loss_value(loss, logp, type(row)(**fields))[1]["balance"] == pytest.approx(balance)


def test_the_weight_is_the_probability_under_the_policy_that_sampled_and_not_under_prox() -> None:
    """prox sees the probabilities the other way round, which would give the balance 0.4 / 0.5."""
    behavior = torch.tensor([[0.1, 0.4]]).double().log()
    row = examples(frozenset())[1].rows(torch.tensor([0]))
    batch = replace(
        row,
        mask=torch.ones(1, 2, dtype=torch.bool),
        behavior_logp=behavior,
        prox_logp=behavior.flip(-1),
        advantage=torch.tensor([[1.0, -1.0]]).double(),
    )
    for name, balance in (("bapo", 0.1 / 0.5), ("bapo_authors_repo", 0.1 / 0.4)):
        loss = build("loss", name, prob_weight=True, target=0.01)
        assert loss_value(loss, behavior, batch)[1]["balance"] == pytest.approx(balance)


def test_without_negatives_positive_over_negative_is_beyond_any_target() -> None:
    """P / Q grows without bound as Q falls to 0: the search stops where it starts."""
    found = search([1.0, 2.0], [1.0, 1.0], metric="pos_neg", target=1e6)
    assert (found.low, found.high, found.steps) == (0.6, 1.2, 0)
    assert 1e6 < found.balance < torch.inf


@pytest.mark.parametrize("metric", ["fraction", "pos_neg"])
def test_without_any_advantage_the_balance_is_zero_and_not_a_quotient_of_zeros(metric: str) -> None:
    found = search([0.5, 2.0], [0.0, 0.0], metric=metric)
    assert found.balance == 0
    assert (found.low, found.high) == pytest.approx((0.9, 3.0))


@given(
    xs=st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 10)), max_size=20),
    bound=st.floats(0, 5),
)
def test_sums_are_those_of_the_bounded_ratios(xs: list[tuple[float, float]], bound: float) -> None:
    """Also of no tokens, and of ratios that are the bound itself."""
    x, weight = torch.tensor([*xs, (bound, 1.0)], dtype=torch.float64).T.contiguous()
    sums = Sums(x, weight)
    assert sums.capped(bound) == pytest.approx(float((weight * x.clamp(max=bound)).sum()))
    assert sums.floored(bound) == pytest.approx(float((weight * x.clamp(min=bound)).sum()))
    none = Sums(x[:0], weight[:0])
    assert none.capped(bound) == none.floored(bound) == 0


@given(
    tokens=st.lists(
        st.tuples(st.floats(1e-3, 1e3), st.floats(0.1, 10) | st.floats(-10, -0.1)),
        min_size=1,
        max_size=20,
    ),
    target=st.floats(0.05, 0.95),
)
def test_the_search_stops_at_the_first_bounds_that_reach_the_target(
    tokens: list[tuple[float, float]], target: float
) -> None:
    """By sums over the tokens one by one, at the bounds found and one step before them."""

    def balance(low: float, high: float) -> float:
        p = math.fsum(min(r, high) * a for r, a in tokens if a > 0)
        q = math.fsum(max(r, low) * -a for r, a in tokens if a < 0)
        return p / (p + q)

    ratios, advantages = zip(*tokens, strict=True)
    found = search(list(ratios), list(advantages), target=target)
    highs, lows = values(1.2, 3.0, 0.05, partial=False), values(0.6, 0.9, 0.02, partial=False)
    path = [(0.6, high) for high in highs] + [(low, 3.0) for low in lows[1:]]
    assert (found.low, found.high) == pytest.approx(path[found.steps])
    assert found.balance == pytest.approx(balance(*path[found.steps]), abs=1e-9)
    assert found.balance >= target or found.steps == len(path) - 1
    assert all(balance(*place) < target + 1e-9 for place in path[: found.steps])


def test_the_bounds_come_from_the_whole_minibatch() -> None:
    """Three wrong answers alone would search to the end: so the scope is the minibatch."""
    loss = build("loss", "bapo", target=0.3)
    logp, batch = examples(loss.needs)
    wrong = torch.tensor([1, 4, 7])
    assert loss_value(loss, logp, batch)[1]["c_high"] == pytest.approx(1.2)
    assert loss_value(loss, logp[wrong], batch.rows(wrong))[1]["c_high"] == pytest.approx(3.0)
    assert loss.scope == "minibatch"


def test_a_million_tokens_and_a_thousand_steps_take_a_moment() -> None:
    n = 1_000_000
    g = torch.Generator().manual_seed(0)
    r, a = torch.rand(n, generator=g) + 0.5, torch.randn(n, generator=g)
    config = BapoConfig(low_step=1e-3, high_step=1e-3, target=0.99)
    started = time.perf_counter()
    found = search_all(r, a, config)
    assert (found.low, found.high) == pytest.approx((0.9, 3.0))
    assert time.perf_counter() - started < 5


def test_a_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(UserError, match=r"c_low_start=0\.9 must not exceed c_low_max=0\.8"):
        build("loss", "bapo", c_low_start=0.9, c_low_max=0.8)


def test_the_defaults_are_the_papers_and_the_authors_codes() -> None:
    """Algorithm 1's numbers, and those of the repository's yaml."""
    paper, code = build("loss", "bapo").config, build("loss", "bapo_authors_repo").config
    shared = {"c_low_start": 0.6, "c_high_start": 1.2, "high_step": 0.05}
    assert (
        paper.model_dump().items()
        >= (shared | {"target": 0.4, "c_low_max": 0.9, "c_high_max": 3.0, "low_step": 0.02}).items()
    )
    assert (
        code.model_dump().items()
        >= (shared | {"target": 1.0, "c_low_max": 0.8, "c_high_max": 2.0, "dual_clip": 3.0}).items()
    )
