"""Estimators on token rewards: returns, whitening, the greedy baseline, and V-trace."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.advantages.gae_vtrace import Traces, vtrace
from algorithms.advantages.reinforce_pp import return_to_go
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.advantages import examples
from tests.algorithms.advantages.hand import batch_of


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_the_discounted_return_skips_masked_tokens() -> None:
    assert return_to_go(row(1, 0, 8), torch.ones(1, 3).bool(), 0.5).tolist() == [[3, 4, 8]]
    mask = torch.tensor([[True, False, True, True, False]])
    assert return_to_go(row(1, 99, 0, 8, 99), mask, 0.5).tolist() == [[3, 0, 4, 8, 0]]


@pytest.mark.parametrize("eps", [1e-8, 1.0])
def test_reinforce_pp_whitens_returns_over_every_valid_token(eps: float) -> None:
    """Rewards 1 and 4 on two tokens each, gamma 1/2: returns 1/2, 1, 2, 4."""
    b = batch_of([1, 4], [0, 1])
    out = build("advantage", "reinforce_pp", gamma=0.5, whiten_eps=eps)(b)
    values = [0.5, 1, 2, 4]
    scale = (statistics.variance(values) + eps) ** 0.5
    assert out.returns.flatten().tolist() == values
    assert out.advantage.flatten().tolist() == pytest.approx(
        [(v - statistics.mean(values)) / scale for v in values]
    )


@pytest.mark.parametrize("eps", [1e-8, 1.0])
def test_reinforce_pp_baseline_whitens_group_differences_over_tokens(eps: float) -> None:
    """Rewards 1 0 | 4 4 and a lonely 2; the second response has one token."""
    mask = torch.ones(5, 2).bool()
    mask[1, 1] = False
    b = replace(batch_of([1, 0, 4, 4, 2], [0, 0, 1, 1, 2]), mask=mask)
    for singleton, last in (("raw_score", 2.0), ("zero", 0.0)):
        name = "reinforce_pp_baseline"
        out = build("advantage", name, whiten_eps=eps, singleton=singleton)(b)
        tokens = [0.5, 0.5, -0.5, 0, 0, 0, 0, last, last]
        scale = (statistics.variance(tokens) + eps) ** 0.5
        mean = statistics.mean(tokens)
        found = out.advantage[mask].tolist()
        assert found == pytest.approx([(v - mean) / scale for v in tokens])
        assert out.advantage[1, 1] == 0 and out.returns[4].tolist() == [2, 2]


def test_remax_subtracts_the_greedy_reward_from_what_is_to_come() -> None:
    """Token rewards -1 (a KL penalty) and 3: returns 2 and 3, less the greedy 1/2."""
    b = batch_of([2, 0], [0, 0])
    b = replace(
        b,
        token_reward=torch.tensor([[-1, 3], [0, 0]]).double(),
        greedy_reward=torch.tensor([0.5, 0.25]).double(),
        mask=torch.tensor([[True, True], [True, False]]),
    )
    out = build("advantage", "remax")(b)
    assert out.advantage.tolist() == [[1.5, 2.5], [-0.25, 0]]
    assert out.returns.tolist() == [[2, 3], [0, 0]]
    assert build("advantage", "remax").needs_greedy


# ---- V-trace


@pytest.mark.parametrize("white", [True, False])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.7)])
def test_on_the_policys_own_data_vtrace_is_gae(white: bool, gamma: float, lam: float) -> None:
    """prox = behavior makes every ratio exactly 1: not a bit differs, holes included."""
    b = examples()
    b = replace(b, prox_logp=b.behavior_logp)
    a, c = (
        build("advantage", name, gamma=gamma, lam=lam, whiten=white)(b)
        for name in ("gae", "gae_vtrace")
    )
    assert torch.equal(a.advantage, c.advantage)
    torch.testing.assert_close(a.returns, c.returns, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("fields", "returns"),
    [
        ({}, [1.25, 3.0]),
        ({"rho_bar": 4.0}, [0.25, 3.0]),
        ({"rho_bar": 4.0, "c_bar": 4.0}, [0.5, 3.0]),
        ({"rho_bar": 0.25, "c_bar": 0.25}, [1.78125, 2.5]),
    ],
)
def test_vtrace_by_hand(fields: dict[str, Any], returns: list[float]) -> None:
    """Values 2, 2, rewards 0, 4, gamma = lam = 1/2, ratios 2 and 1/2: delta = -1, 2.

    v - V at the end is min(1/2, rho) 2, and before it -min(2, rho) + min(2, c) / 4 of that.
    """
    b = batch_of([4], [0])
    b = replace(
        b,
        values=row(2, 2),
        behavior_logp=row(-3, -2),
        prox_logp=row(-3, -2) + row(2, 0.5).log(),
    )
    out = build("advantage", "gae_vtrace", gamma=0.5, lam=0.5, whiten=False, **fields)(b)
    assert out.returns.tolist()[0] == pytest.approx(returns)
    after = returns[1] - 2
    assert out.advantage.tolist()[0] == pytest.approx([-1 + after / 4, 2])


def test_with_one_bound_it_is_the_sum_of_geppo() -> None:
    """A_t = sum_j (gamma lam)^j (prod_{i=1..j} c_{t+i}) delta_{t+j}; returns are c_t A_t + V_t."""
    b = examples()
    gamma, lam = 0.9, 0.8
    out = build("advantage", "gae_vtrace", gamma=gamma, lam=lam, whiten=False)(b)
    for i in range(8):
        m = b.mask[i]
        v, r = b.values[i][m], b.token_reward[i][m]
        c = (b.prox_logp - b.behavior_logp)[i][m].exp().clamp(max=1)
        delta = r + gamma * torch.cat([v[1:], v.new_zeros(1)]) - v
        n = len(v)
        expected = [
            sum(
                float((gamma * lam) ** j * c[t + 1 : t + j + 1].prod() * delta[t + j])
                for j in range(n - t)
            )
            for t in range(n)
        ]
        assert out.advantage[i][m].tolist() == pytest.approx(expected)
        assert out.returns[i][m].tolist() == pytest.approx(
            (c * c.new_tensor(expected) + v).tolist()
        )


def test_vtrace_skips_masked_tokens() -> None:
    mask = torch.tensor([[True, False, True, False]])
    held = Traces(rho=row(0.5, 99, 0.25, 99), c=row(0.5, 99, 0.25, 99))
    plain = Traces(rho=row(0.5, 0.25), c=row(0.5, 0.25))
    a = vtrace(row(0, 99, 4, 99), row(2, 99, 2, 99), mask, held, 0.5, 0.5)
    b = vtrace(row(0, 4), row(2, 2), torch.ones(1, 2).bool(), plain, 0.5, 0.5)
    for x, y in zip(a, b, strict=True):
        assert x[mask].tolist() == y[0].tolist() and (x[~mask] == 0).all()


def test_whitening_and_its_eps_are_those_of_gae() -> None:
    b = examples()
    raw, white, wide = (
        build("advantage", "gae_vtrace", **f)(b)
        for f in ({"whiten": False}, {}, {"whiten_eps": 1.0})
    )
    valid = raw.advantage[b.mask]
    centred = valid - valid.mean()
    torch.testing.assert_close(white.advantage[b.mask], centred / valid.std())
    torch.testing.assert_close(wide.advantage[b.mask], centred / (valid.var() + 1).sqrt())
    assert torch.equal(raw.returns, wide.returns)


def test_a_demonstration_has_ratio_one() -> None:
    b = examples()
    expert = replace(b, expert=torch.arange(8) == 2)
    known = replace(b, prox_logp=torch.where(expert.expert[:, None], b.behavior_logp, b.prox_logp))
    a, c = (build("advantage", "gae_vtrace")(x) for x in (expert, known))
    assert torch.equal(a.advantage, c.advantage) and torch.equal(a.returns, c.returns)


def test_the_bounds_are_ordered() -> None:
    with pytest.raises(UserError, match=r"c_bar=2\.0 must not exceed rho_bar=1\.0"):
        build("advantage", "gae_vtrace", c_bar=2.0)
