"""Advantages by hand: baselines, scales, lonely responses, and what a critic is fitted to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from algorithms.advantages.gae import gae
from rlkit.registry import build, names
from rlkit.testing.advantages import examples
from tests.algorithms.advantages.hand import REWARDS, batch_of, estimate, one_a_row

STD = 2.0**0.5  # of 0, 0, 3 and 1, by hand: mean 1, squares 1 + 1 + 4 + 0 = 6, over n - 1 = 3


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("group_norm", {}, [0, -1 / STD, -1 / STD, 2 / STD]),
        ("group_norm", {"unbiased": False}, [0, -1 / 1.5**0.5, -1 / 1.5**0.5, 2 / 1.5**0.5]),
        ("group_norm", {"eps": 1.0}, [0, -1 / (STD + 1), -1 / (STD + 1), 2 / (STD + 1)]),
        ("group_norm", {"std": "none"}, [0, -1, -1, 2]),
        ("group_mean", {}, [0, -1, -1, 2]),
        ("rloo", {}, [0, -4 / 3, -4 / 3, 8 / 3]),
        ("reward", {}, [1, -1, -1, 5]),
        ("reward", {"scale": 0.5, "shift": 0.25}, [0.75, 0.25, 0.25, 1.75]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["group_norm", "group_mean", "rloo"])
def test_each_group_has_its_own_baseline(name: str) -> None:
    """Two groups mixed row by row give what they give alone; 100 more reward in one changes
    nothing.
    """
    mixed = one_a_row(estimate(name, [1, 105, 0, 101, 0, 100], [3, 9, 3, 9, 3, 9]))
    assert mixed[0::2] == pytest.approx(one_a_row(estimate(name, [1, 0, 0], [0, 0, 0])))
    assert mixed[1::2] == pytest.approx(one_a_row(estimate(name, [5, 1, 0], [0, 0, 0])))


def test_the_batch_std_is_over_every_reward() -> None:
    """Rewards 1 0 | 4 4: mean 2.25, squares 1.5625 + 5.0625 + 2 * 3.0625 = 12.75, over 3: 4.25."""
    out = estimate("group_norm", [1, 0, 4, 4], [0, 0, 1, 1], std="batch", eps=1e-12)
    scale = 4.25**0.5
    assert one_a_row(out) == pytest.approx([0.5 / scale, -0.5 / scale, 0, 0])


@pytest.mark.parametrize(
    ("name", "singleton", "expected"),
    [
        ("group_norm", "raw_score", 5 / (1 + 1e-6)),
        ("group_norm", "zero", 0),
        ("group_mean", "raw_score", 5),
        ("group_mean", "zero", 0),
        ("rloo", "raw_score", 5),
        ("rloo", "zero", 0),
    ],
)
def test_a_response_alone_in_its_group(name: str, singleton: str, expected: float) -> None:
    out = estimate(name, [1, 0, 5], [0, 0, 1], singleton=singleton)
    assert one_a_row(out)[2] == pytest.approx(expected)


@given(
    reward=st.floats(-1e3, 1e3),
    sizes=st.lists(st.integers(2, 9), min_size=1, max_size=4),
    wide=st.booleans(),
)
@pytest.mark.parametrize("name", ["group_norm", "group_mean", "rloo"])
def test_a_group_of_equal_rewards_gets_exactly_nothing(
    name: str, reward: float, sizes: list[int], wide: bool
) -> None:
    """Whatever rounding does to the mean of equal numbers: dividing it by a tiny std would be a
    push.
    """
    group = [g for g, n in enumerate(sizes) for _ in range(n)]
    b = batch_of([reward] * min(8, len(group)), group[:8])
    if not wide:
        b = replace(b, reward=b.reward.float())
    alone = torch.bincount(b.group)[b.group] == 1
    assert (build("advantage", name)(b).advantage[~alone] == 0).all()


def test_only_comparisons_need_two_responses_a_prompt() -> None:
    smallest = {name: build("advantage", name).min_group for name in names("advantage")}
    alone = {n for n, size in smallest.items() if size == 1}
    assert alone == {
        *("batch_norm", "gae", "gae_vtrace", "psr_nsr", "reinforce_pp", "remax", "reward")
    }
    assert {size for n, size in smallest.items() if n not in alone} == {2}
    critics = {name for name in names("advantage") if build("advantage", name).needs_critic}
    assert critics == {"gae", "gae_vtrace"}


def test_wrong_answers_are_pushed_down_by_the_reward_advantage() -> None:
    assert one_a_row(estimate("reward", [0, 1], [0, 1])) == [-1, 1]


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_gae_by_hand() -> None:
    """gamma 1/2, lambda 1/2: delta = (0 + 1 - 1, 0 + 2 - 2, 8 - 4), A_t = delta_t + A_{t+1} / 4."""
    found = gae(row(0, 0, 8), row(1, 2, 4), torch.ones(1, 3).bool(), 0.5, 0.5)
    assert found.tolist() == [[0.25, 1.0, 4.0]]


def test_gae_skips_masked_tokens() -> None:
    """Values and running sums of a response with a hole are those of the response without it."""
    mask = torch.tensor([[True, False, True, True, False]])
    found = gae(row(0, 99, 0, 8, 99), row(1, 99, 2, 4, 99), mask, 0.5, 0.5)
    assert found.tolist() == [[0.25, 0, 1.0, 4.0, 0]]


def test_with_gamma_and_lambda_one_the_advantage_is_the_return_less_the_value() -> None:
    b = examples()
    out = build("advantage", "gae", whiten=False)(b)
    expected = torch.where(b.mask, b.reward[:, None] - b.values, 0.0)
    torch.testing.assert_close(out.advantage, expected)
    torch.testing.assert_close(out.returns, torch.where(b.mask, b.reward[:, None], 0.0))


def test_whitening_leaves_mean_zero_and_variance_one_and_the_returns_alone() -> None:
    b = examples()
    plain, white = (build("advantage", "gae", whiten=w)(b) for w in (False, True))
    valid = white.advantage[b.mask]
    assert float(valid.mean()) == pytest.approx(0, abs=1e-12)
    assert float(valid.var()) == pytest.approx(1, rel=1e-6)
    assert torch.equal(plain.returns, white.returns)


def test_the_critic_is_held_near_its_old_value() -> None:
    """Return 10, old value 0, clip 1/2: at 2 the loss is that of 1/2 and the gradient gone; at 1/4
    neither.
    """
    values = row(2.0, 0.25, -1.0).requires_grad_()
    estimator = build("advantage", "gae", value_clip=0.5)
    loss, clipped = estimator.value_loss(values, row(0, 0, 0), row(10, 10, 10))
    assert loss.tolist()[0] == pytest.approx([9.5**2 / 2, 9.75**2 / 2, 11**2 / 2])
    assert clipped.tolist() == [[1, 0, 0]]
    (gradient,) = torch.autograd.grad(loss.sum(), values)
    assert gradient.tolist()[0] == pytest.approx([0, -9.75, -11])


def test_estimators_without_a_critic_have_an_unclipped_value_loss() -> None:
    loss, clipped = build("advantage", "group_norm").value_loss(row(3.0), row(0.0), row(1.0))
    assert loss.tolist() == [[2.0]] and clipped.tolist() == [[0.0]]
