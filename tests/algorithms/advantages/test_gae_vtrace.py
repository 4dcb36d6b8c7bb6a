"""V-trace by hand, and GAE as its special case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from algorithms.advantages.gae_vtrace import Traces, vtrace
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.advantages import examples
from tests.algorithms.advantages.hand import batch_of, row


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
