"""Estimators on one reward a response, by hand, with their limits and identities."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import AdvantageOutput
from rlkit.errors import UserError
from rlkit.registry import build
from tests.algorithms.advantages.hand import REWARDS, batch_of, estimate, one_a_row

STD = 2.0**0.5  # of 1, 0, 0, 3
BIASED = 1.5**0.5
LOO_STD = (96 / 27) ** 0.5 + 1e-4  # of 0, -4/3, -4/3, 8/3, with its eps
LME = math.log((2 + math.e + math.e**3) / 4)  # log mean exp of 1, 0, 0, 3
LME_HALF = 0.5 * math.log((2 + math.e**2 + math.e**6) / 4)


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("batch_norm", {}, [0, -1 / STD, -1 / STD, 2 / STD]),
        ("batch_norm", {"unbiased": False}, [0, -1 / BIASED, -1 / BIASED, 2 / BIASED]),
        ("batch_norm", {"eps": 1.0}, [0, -1 / (STD + 1), -1 / (STD + 1), 2 / (STD + 1)]),
        ("rloo", {"normalize": True}, [0, -4 / 3 / LOO_STD, -4 / 3 / LOO_STD, 8 / 3 / LOO_STD]),
        ("gpg", {}, [0, -2, -2, 4]),
        ("gpg", {"f_norm": 4.0}, [0, -0.5, -0.5, 1]),
        ("grpo_passk", {}, [0, 0, 0, 2 / STD]),
        ("grpo_passk", {"std": False}, [0, 0, 0, 2]),
        ("grpo_passk", {"unbiased": False}, [0, 0, 0, 2 / BIASED]),
        ("grpo_passk", {"eps": 1.0}, [0, 0, 0, 2 / (STD + 1)]),
        ("asymre", {}, [0.1, -0.9, -0.9, 2.1]),
        ("asymre", {"baseline_shift": 0.5}, [-0.5, -1.5, -1.5, 1.5]),
        ("opmd", {}, [0, -1, -1, 2]),
        ("opmd", {"baseline": "logavgexp"}, [1 - LME, -LME, -LME, 3 - LME]),
        (
            "opmd",
            {"baseline": "logavgexp", "tau": 0.5},
            [1 - LME_HALF, -LME_HALF, -LME_HALF, 3 - LME_HALF],
        ),
        ("oapl", {}, [1 - LME, -LME, -LME, 3 - LME]),
        ("oapl", {"beta1": 0.5}, [1 - LME_HALF, -LME_HALF, -LME_HALF, 3 - LME_HALF]),
        ("maxrl", {}, [0, -1, -1, 2]),
        ("maxrl", {"eps": 1.0}, [0, -0.5, -0.5, 1]),
        ("psr_nsr", {}, [0.1, -1, -1, 0.1]),
        ("psr_nsr", {"positive_weight": 1.0, "negative_weight": 0.0}, [1, 0, 0, 1]),
        ("psr_nsr", {"positive_weight": 0.0, "negative_weight": 0.5}, [0, -0.5, -0.5, 0]),
        ("psr_nsr", {"threshold": 1.0}, [-1, -1, -1, 0.1]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS


GROUPED = ["gpg", "grpo_passk", "asymre", "opmd", "oapl", "maxrl", "opo", "red_drop"]


@pytest.mark.parametrize("name", GROUPED)
def test_each_group_has_its_own_baseline(name: str) -> None:
    """Two groups mixed row by row give what they give alone."""
    mixed = one_a_row(estimate(name, [1, 5, 2, 1, 4, 3], [3, 9, 3, 9, 3, 9]))
    assert mixed[0::2] == pytest.approx(one_a_row(estimate(name, [1, 2, 4], [0, 0, 0])))
    assert mixed[1::2] == pytest.approx(one_a_row(estimate(name, [5, 1, 3], [0, 0, 0])))


def test_the_batch_norm_knows_no_groups() -> None:
    one, many = (one_a_row(estimate("batch_norm", REWARDS, g)) for g in ([0] * 4, [0, 1, 2, 3]))
    assert one == many


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


def test_normalised_leave_one_out_is_centred_over_the_batch() -> None:
    """A lonely response keeps its reward 5 and shifts the batch: 1, -1, 5 have mean 5/3."""
    found = one_a_row(estimate("rloo", [1, 0, 5], [0, 0, 1], normalize=True))
    assert found == pytest.approx(
        [(a - 5 / 3) / (statistics.stdev([1, -1, 5]) + 1e-4) for a in (1, -1, 5)]
    )


def test_leave_one_out_is_the_centred_reward_times_n_over_n_minus_one() -> None:
    loo, centred = (estimate(n, REWARDS, [0] * 4) for n in ("rloo", "group_mean"))
    torch.testing.assert_close(loo.advantage, 4 / 3 * centred.advantage)


def lengths(out_of: list[int]) -> torch.Tensor:
    return torch.arange(2) < torch.tensor(out_of)[:, None]


def test_opo_weighs_the_baseline_by_length() -> None:
    """Lengths 1, 2, 2, 1: (1 * 1 + 1 * 3) / 6 = 2/3. Equal lengths give the mean."""
    b = replace(batch_of(REWARDS, [0] * 4), mask=lengths([1, 2, 2, 1]))
    found = build("advantage", "opo")(b).advantage
    assert found[:, 0].tolist() == pytest.approx([1 / 3, -2 / 3, -2 / 3, 7 / 3])
    assert found[:, 1].tolist() == pytest.approx([0, -2 / 3, -2 / 3, 0])
    assert one_a_row(estimate("opo", REWARDS, [0] * 4)) == pytest.approx([0, -1, -1, 2])


def test_an_opo_group_of_empty_responses_is_finite() -> None:
    b = replace(batch_of(REWARDS, [0, 0, 1, 1]), mask=lengths([0, 0, 2, 2]))
    found = build("advantage", "opo")(b).advantage
    assert found[:2].tolist() == [[0, 0], [0, 0]] and found[3, 0] == 1.5


def test_shared_first_places_lead_nobody() -> None:
    assert one_a_row(estimate("grpo_passk", [3, 3, 0], [0, 0, 0])) == [0, 0, 0]


def test_the_score_of_an_empty_response_is_zero_for_the_lead() -> None:
    """The best response is 3 better than an empty one whatever reward stands beside that."""
    b = replace(batch_of([3.0, 2.0], [0, 0]), mask=lengths([2, 0]))
    found = build("advantage", "grpo_passk", std=False)(b).advantage
    assert found.tolist() == [[3, 3], [0, 0]]


def test_gpg_makes_up_for_responses_without_a_score() -> None:
    """Three of four rewards 0: alpha 4, and 1 if none is."""
    assert one_a_row(estimate("gpg", [1, 0, 0, 0], [0] * 4)) == pytest.approx([3, -1, -1, -1])
    assert one_a_row(estimate("gpg", [2, 1], [0, 0])) == pytest.approx([0.5, -0.5])
    assert one_a_row(estimate("gpg", [0, 0], [0, 0])) == [0, 0]


@pytest.mark.parametrize("name", ["opmd", "oapl"])
def test_the_soft_baseline_goes_from_the_best_reward_to_the_mean(name: str) -> None:
    """V* -> max as the temperature -> 0, -> mean as it -> infinity; no overflow at either end."""
    field = {"opmd": "tau", "oapl": "beta1"}[name]
    more: dict[str, Any] = {"baseline": "logavgexp"} if name == "opmd" else {}
    cold = one_a_row(estimate(name, REWARDS, [0] * 4, **{field: 1e-4}, **more))
    hot = one_a_row(estimate(name, REWARDS, [0] * 4, **{field: 1e6}, **more))
    assert cold == pytest.approx([-2, -3, -3, 0], abs=1e-3)
    assert hot == pytest.approx([0, -1, -1, 2], abs=1e-5)


def test_maxrl_does_not_depend_on_the_scale_of_the_rewards() -> None:
    """(R - mean) / mean; with 0/1 rewards a correct answer gets 1/p - 1, so rare ones more."""
    once, twice = (estimate("maxrl", [k * r for r in REWARDS], [0] * 4) for k in (1, 2))
    torch.testing.assert_close(once.advantage, twice.advantage, rtol=1e-5, atol=1e-12)
    assert one_a_row(estimate("maxrl", [1, 0, 0, 0], [0] * 4)) == pytest.approx(
        [3, -1, -1, -1], rel=1e-4
    )
    assert one_a_row(estimate("maxrl", [0, 0], [0, 0])) == [0, 0]


def two_rewards(**fields: Any) -> AdvantageOutput:
    b = batch_of([1.0, 0.0, 2.0, 2.0], [0] * 4)
    a, c = (torch.tensor(r, dtype=torch.float64) for r in ([1, 0, 0, 0], [0, 0, 2, 2]))
    return build("advantage", "gdpo", **fields)(replace(b, rewards={"a": a, "c": c}))


@pytest.mark.parametrize("weights", [{}, {"a": 2.0}, {"a": 0.0, "c": 3.0}, {"c": -1.0}])
def test_gdpo_adds_normalised_rewards(weights: dict[str, float]) -> None:
    """a = 1 0 0 0: centred 3/4, -1/4, std 1/2; c = 0 0 2 2: centred -1, 1, std sqrt(4/3)."""
    wa, wc = weights.get("a", 1.0), weights.get("c", 1.0)
    x, y = 0.5, (4 / 3) ** 0.5
    total = [
        wa * a / (x + 1e-4) + wc * c / (y + 1e-4)
        for a, c in zip([0.75, -0.25, -0.25, -0.25], [-1, -1, 1, 1], strict=True)
    ]
    spread = statistics.stdev(total) + 1e-4
    found = one_a_row(two_rewards(weights=weights))
    assert found == pytest.approx([v / spread for v in total])


def test_gdpo_eps_is_added_to_each_standard_deviation() -> None:
    narrow, wide = (one_a_row(two_rewards(eps=e)) for e in (1e-9, 1.0))
    total = [
        a / 1.5 + c / ((4 / 3) ** 0.5 + 1)
        for a, c in zip([0.75, -0.25, -0.25, -0.25], [-1, -1, 1, 1], strict=True)
    ]
    assert wide == pytest.approx([v / (statistics.stdev(total) + 1) for v in total])
    assert statistics.stdev(narrow) == pytest.approx(1)


def test_gdpo_tells_apart_what_a_sum_of_rewards_hides() -> None:
    """Responses 0 and 2 have the sums 1 and 2 here; each reward's spread decides instead."""
    found = one_a_row(two_rewards())
    assert found[0] > found[2] == found[3] > found[1]


def test_gdpo_refuses_a_weight_for_a_reward_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"advantage\.weights names the reward 'b'.*a, c"):
        two_rewards(weights={"b": 1.0})
