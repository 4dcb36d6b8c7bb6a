"""What every estimator that compares responses of a group keeps: baselines, ties, lonely ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlkit.batch import AdvantageBatch
from rlkit.errors import UserError
from rlkit.registry import build, names
from tests.algorithms.advantages.hand import batch_of, estimate, one_a_row, row


@pytest.mark.parametrize("name", ["group_norm", "group_mean", "rloo"])
def test_a_group_is_not_moved_by_what_another_gets(name: str) -> None:
    """Two groups mixed row by row give what they give alone; 100 more reward in one changes
    nothing.
    """
    mixed = one_a_row(estimate(name, [1, 105, 0, 101, 0, 100], [3, 9, 3, 9, 3, 9]))
    assert mixed[0::2] == pytest.approx(one_a_row(estimate(name, [1, 0, 0], [0, 0, 0])))
    assert mixed[1::2] == pytest.approx(one_a_row(estimate(name, [5, 1, 0], [0, 0, 0])))


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
def test_a_lonely_response_gets_what_singleton_says(
    name: str, singleton: str, expected: float
) -> None:
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
        *("batch_norm", "gae", "gae_age", "gae_vtrace", "mopd", "psr_nsr", "reinforce_pp"),
        *("remax", "reward", "spo"),
    }
    assert {size for n, size in smallest.items() if n not in alone} == {2}
    critics = {name for name in names("advantage") if build("advantage", name).needs_critic}
    assert critics == {"gae", "gae_age", "gae_vtrace"}


def test_estimators_without_a_critic_have_an_unclipped_value_loss() -> None:
    loss, clipped = build("advantage", "group_norm").value_loss(row(3.0), row(0.0), row(1.0))
    assert loss.tolist() == [[2.0]] and clipped.tolist() == [[0.0]]


GROUPED = ["gpg", "grpo_passk", "asymre", "opmd", "oapl", "maxrl", "opo", "red_drop"]


@pytest.mark.parametrize("name", GROUPED)
def test_each_group_has_its_own_baseline(name: str) -> None:
    """Two groups mixed row by row give what they give alone."""
    mixed = one_a_row(estimate(name, [1, 5, 2, 1, 4, 3], [3, 9, 3, 9, 3, 9]))
    assert mixed[0::2] == pytest.approx(one_a_row(estimate(name, [1, 2, 4], [0, 0, 0])))
    assert mixed[1::2] == pytest.approx(one_a_row(estimate(name, [5, 1, 3], [0, 0, 0])))


@pytest.mark.parametrize("name", [*GROUPED, "rloo", "batch_norm", "reinforce_pp_baseline", "gdpo"])
def test_equal_rewards_give_exactly_nothing(name: str) -> None:
    """Rounding in the mean of 0.1 or 0.7 must not become a push; AsymRE pushes by its shift."""
    special: dict[str, dict[str, Any]] = {
        "asymre": {"baseline_shift": 0.0},
        "opmd": {"baseline": "logavgexp", "tau": 0.3},
        "oapl": {"beta1": 0.3},
        "rloo": {"normalize": True},
    }
    second = 0.1 if name == "batch_norm" else 0.7
    rewards = [0.1] * 3 + [second] * 3
    out = estimate(name, rewards, [0, 0, 0, 1, 1, 1], **special.get(name, {}))
    assert (out.advantage == 0).all()


@pytest.mark.parametrize("name", ["gpg", "asymre", "opmd", "maxrl", "opo", "red_drop"])
@pytest.mark.parametrize("singleton", ["raw_score", "zero"])
def test_a_response_alone_in_its_group(name: str, singleton: str) -> None:
    """Its reward as it is (times gpg's alpha, 3 / 2 here), or 0."""
    out = estimate(name, [1, 0, 5], [0, 0, 1], singleton=singleton)
    scale = 1.5 if name == "gpg" else 1.0
    assert one_a_row(out)[2] == pytest.approx(5 * scale if singleton == "raw_score" else 0)


@pytest.mark.parametrize("name", ["grpo_passk", "oapl", "gdpo"])
def test_a_lonely_response_has_nothing_to_lead_or_to_lag(name: str) -> None:
    found = one_a_row(estimate(name, [1, 1, 5], [0, 0, 1]))
    assert found[2] == 0


WITHOUT_BASELINE = {"reward", "psr_nsr", "mopd"}
SHIFT = {"asymre": {"baseline_shift": 0.0}}


@pytest.mark.parametrize("size", [1e-3, 0.1, 1 / 3, 0.35, 1e3, 1e6])
@pytest.mark.parametrize("name", sorted(set(names("advantage")) - WITHOUT_BASELINE))
def test_equal_rewards_of_a_batch_teach_nothing(name: str, size: float) -> None:
    """Groups of 3, 7 and 8 responses of unequal lengths, some replayed: exactly 0, at any reward.

    The rounding of a mean must not be taken for a difference. The critic knows nothing yet, and the
    greedy response earns the same.
    """
    n = 18
    for dtype in (torch.float32, torch.float64):
        reward = torch.full((n,), size, dtype=dtype)
        length = 1 + torch.arange(n) % 5
        token_reward = torch.zeros(n, 5, dtype=dtype)
        token_reward[torch.arange(n), length - 1] = reward
        logp = torch.zeros(n, 5, dtype=dtype)
        batch = AdvantageBatch(
            reward=reward,
            rewards={"task": reward, "format": reward / 7},
            token_reward=token_reward,
            greedy_reward=reward,
            mask=torch.arange(5) < length[:, None],
            group=torch.tensor([4] * 3 + [0] * 7 + [2] * 8),
            age=torch.arange(n) % 3,
            expert=torch.zeros(n, dtype=torch.bool),
            replayed=torch.arange(n) % 7 == 5,
            values=logp,
            behavior_logp=logp,
            prox_logp=logp,
            anchor_logp={},
        )
        out = build("advantage", name, **SHIFT.get(name, {}))(batch)
        assert not out.advantage.any()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("group_mean", [0.75, -0.25, -0.25, 0.75]),
        ("group_norm", [1.5, -0.5, -0.5, 1.5]),
    ],
)
def test_demonstrations_may_be_left_out_of_the_statistics(name: str, expected: list[float]) -> None:
    """Own rewards 1, 0, 0, 0: mean 1/4, deviation 1/2. A demonstration with 1 gets 3/4 over it."""
    b = batch_of([1, 0, 0, 1, 0], [0] * 5)
    b = replace(b, expert=torch.tensor([False, False, False, True, False]))
    out = build("advantage", name, demonstrations="left_out")(b)
    found = one_a_row(out)
    assert found == pytest.approx([*expected, expected[1]], rel=1e-5)
    counted = one_a_row(build("advantage", name)(b))
    assert counted[0] == pytest.approx(0.6 if name == "group_mean" else 0.6 / 0.3**0.5, rel=1e-5)


@pytest.mark.parametrize("own", [1, 2, 3])
def test_equal_own_rewards_teach_nothing_but_the_demonstration(own: int) -> None:
    """0.1 three times has a mean that is not 0.1; a lone own response has the mean 0."""
    b = batch_of([0.1] * own + [1.0], [0] * (own + 1))
    b = replace(b, expert=torch.tensor([False] * own + [True]))
    found = one_a_row(build("advantage", "group_norm", demonstrations="left_out", eps=1e-9)(b))
    expected = [0.1, 1.0] if own == 1 else [0.0] * own + [0.9]
    assert found == pytest.approx(expected)


def test_a_deviation_of_the_batch_counts_every_row() -> None:
    with pytest.raises(UserError, match="left_out is for"):
        build("advantage", "group_norm", demonstrations="left_out", std="batch")
