"""What a step logs, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import rlkit
from rlkit.batch import LossBatch, PolicyTerms, Sample
from rlkit.rollout.base import Generation
from rlkit.training.metrics import (
    Counted,
    RolloutTally,
    data_metrics,
    engine_mismatch,
    explained_variance,
    first_pass_metrics,
    loss_sums,
    mean_steps,
    peak_memory_mb,
    scheduled,
    staleness,
)
from rlkit.training.sums import MetricSums


def test_a_spread_of_the_returns_that_is_rounding_alone_explains_nothing() -> None:
    """Returns are advantages plus values: equal ones come out with the rounding of the values."""
    values = torch.linspace(-1, 1, 8)[None]
    rounded = values - values + 1e-9 * torch.arange(8.0)
    mask = torch.ones(1, 8, dtype=torch.bool)
    assert explained_variance(values, rounded, mask) == 0.0
    assert explained_variance(values, values, mask) == 1.0
    assert explained_variance(values, 2 * values, mask) == pytest.approx(0.75)


MASK = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])


def two_rows() -> LossBatch:
    """Rows of two and one valid tokens with ages 0 and 2; the second is a demonstration."""
    zeros = torch.zeros(2, 3)
    return LossBatch(
        mask=MASK[:2],
        advantage=zeros,
        behavior_logp=torch.full((2, 3), -1.0),
        prox_logp=zeros,
        anchor_logp={},
        reward=torch.zeros(2),
        group=torch.tensor([0, 1]),
        age=torch.tensor([0, 2]),
        expert=torch.tensor([False, True]),
    )


def test_a_loss_without_a_ratio_of_its_own_gets_the_one_to_the_behavior_policy() -> None:
    log2 = math.log(2)
    batch = replace(two_rows(), expert=torch.tensor([False, False]))
    logp = torch.tensor([[-1 + log2, -1.0, 50.0], [-1 - log2, 50.0, 50.0]])
    found = MetricSums().plus(loss_sums({}, logp, batch, None, 1)).means()
    assert found == pytest.approx(
        {
            "policy/ratio_mean": (2 + 1 + 0.5) / 3,
            "policy/ratio_max": 2,
            "policy/ratio_mean_age_0": 1.5,
            "policy/ratio_mean_age_2": 0.5,
        }
    )
    of_the_policy = {
        "policy/ratio_mean": 1.5,
        "policy/ratio_max": 2,
        "policy/ratio_mean_age_0": 1.5,
    }
    unsaid = batch.behavior_logp.clone()
    unsaid[1] = torch.nan
    for unknown in (two_rows(), replace(batch, behavior_logp=unsaid)):
        found = MetricSums().plus(loss_sums({}, logp, unknown, None, 1)).means()
        assert found == pytest.approx(of_the_policy), "nobody knows how likely the second was"
    own = {"policy/ratio_mean": torch.full((2, 3), 3.0)}
    assert "policy/ratio_max" not in {
        name for name, _, _ in loss_sums(own, logp, batch, None, 1)
    }, "a loss that has its ratio says what is logged"


def test_what_counts_may_be_known_apart_from_the_batch() -> None:
    """The mask and the ages on the CPU decide, so that nobody asks the device for them."""
    batch = two_rows()
    blank = replace(batch, mask=torch.ones_like(batch.mask), age=torch.zeros_like(batch.age))
    values = {"policy/ratio_mean": torch.tensor([[1.0, 3.0, 9.0], [5.0, 9.0, 9.0]])}
    logp = torch.full((2, 3), -1.0)
    sums = loss_sums(values, logp, blank, None, 1, Counted.of(batch))
    assert MetricSums().plus(sums).means() == {
        "policy/ratio_mean": 3.0,
        "policy/ratio_mean_age_0": 2.0,
        "policy/ratio_mean_age_2": 5.0,
    }


def test_an_anchor_without_a_penalty_logs_no_kl() -> None:
    batch = replace(two_rows(), anchor_logp={"base": torch.full((2, 3), -2.0)})
    logp = torch.full((2, 3), -1.0)

    def found(beta: float) -> dict[str, float]:
        anchor = rlkit.build("anchor", "base", beta=beta, value_estimator="k1")
        return MetricSums().plus(loss_sums({}, logp, batch, anchor, 1)).means()

    assert found(0.1)["anchor/kl"] == found(0.1)["anchor/kl_base"] == 1.0
    assert not [name for name in found(0.0) if name.startswith("anchor")]


def test_the_first_pass_measures_the_policy_against_those_that_sampled() -> None:
    """Ratios 2 and 1 of the policy's own row: ESS (2 + 1)^2 / (2 (4 + 1)); k3 of -log 2 and 0."""
    batch, log2 = two_rows(), math.log(2)
    logp = torch.tensor([[-1 + log2, -1.0, 0.0], [-9.0, 0.0, 0.0]])
    entropy = torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]])
    found = first_pass_metrics(PolicyTerms(logp=logp, entropy=entropy), batch)
    assert found == pytest.approx(
        {
            "policy/entropy": 3.0,
            "off_policy/ess": 0.9,
            "off_policy/kl": (2 - 1 - log2) / 2,
        }
    )


def test_of_a_batch_whose_sampler_is_not_known_nothing_is_said_to_be_off_policy() -> None:
    batch = two_rows()
    terms = PolicyTerms(logp=torch.full((2, 3), -2.0), entropy=torch.ones(2, 3))
    for unknown in (
        replace(batch, expert=torch.tensor([True, True])),
        replace(batch, behavior_logp=torch.full((2, 3), torch.nan)),
    ):
        assert first_pass_metrics(terms, unknown) == {"policy/entropy": 1.0}


def test_the_mismatch_is_of_fresh_rows_alone() -> None:
    batch = two_rows()
    own = torch.tensor([[-1.1, -1.3, 9.0], [-5.0, 9.0, 9.0]])
    found = engine_mismatch(batch, own, torch.tensor([True, False]))
    assert found["off_policy/engine_difference_mean"] == pytest.approx(0.2)
    assert found["off_policy/engine_difference_max"] == pytest.approx(0.3)
    kl = [math.exp(-d) - 1 + d for d in (0.1, 0.3)]
    assert found["off_policy/engine_kl"] == pytest.approx(sum(kl) / 2, rel=1e-4)
    assert engine_mismatch(batch, own, torch.tensor([False, False])) == {}


def test_loss_and_norm_are_means_of_the_steps_that_were_taken() -> None:
    assert mean_steps([(1.0, 4.0), (3.0, 2.0)]) == {"policy/loss": 2.0, "policy/grad_norm": 3.0}
    assert mean_steps([]) == {}


def generation(tokens: int, reason: str) -> Generation:
    return Generation(
        response_ids=torch.zeros(tokens, dtype=torch.int64),
        logp=torch.zeros(tokens),
        policy_version=torch.zeros(tokens, dtype=torch.int32),
        finish_reason=reason,
        extras={},
    )


def test_a_tally_counts_every_response_and_averages_those_with_a_reward() -> None:
    tally = RolloutTally(events={"timeouts": 2, "unparsed": 1, "mean": 9})
    tally.count(generation(4, "length"), 1.0, {"right": 1.0, "short": 0.5})
    tally.count(generation(2, "stop"), 0.0, {"right": 0.0})
    tally.count(generation(6, "length"), None, {})
    assert tally.metrics() == pytest.approx(
        {
            "reward/mean": 0.5,
            "reward/std": 0.5,
            "completions/mean_length": 4.0,
            "completions/clipped_ratio": 2 / 3,
            "reward/right/mean": 0.5,
            "reward/short/mean": 0.5,
            "reward/errors": 0.0,
            "reward/timeouts": 2.0,
            "reward/lost": 0.0,
            "reward/unparsed": 1.0,
        }
    )
    assert "reward/mean" not in RolloutTally().metrics()


def test_a_cost_is_compared_with_its_limit_in_a_step_that_measures_it() -> None:
    tally = RolloutTally(limits={"cost": 0.5, "unseen": 0.5})
    for cost in (1.0, 0.75):
        tally.count(generation(4, "stop"), 0.0, {"cost": cost})
    tally.count(generation(4, "stop"), 0.0, {})
    found = tally.metrics()
    assert found["reward/cost/violation"] == 0.375 and "reward/unseen/violation" not in found


def test_a_multiplier_is_logged_beside_its_cost_and_other_fields_as_schedules() -> None:
    values = {"reward.a.weight": 1.0, "reward.a.b.multiplier": 2.0, "anchor.multiplier": 3.0}
    assert scheduled(values) == {
        "schedule/reward.a.weight": 1.0,
        "reward/a.b/multiplier": 2.0,
        "schedule/anchor.multiplier": 3.0,
    }


def sample(step: int, versions: list[int], source: str = "policy") -> Sample:
    """A response of step `step` whose tokens "1" have weights of the given versions."""
    n = len(versions)
    return Sample(
        sample_id=1,
        prompt_id="train-0",
        response_ids=torch.full((n,), 3),
        loss_mask=torch.ones(n, dtype=torch.bool),
        behavior_logp=torch.zeros(n),
        policy_version=torch.tensor(versions, dtype=torch.int32),
        reward=0.5,
        rewards={"one": 0.5},
        finish_reason="stop",
        source=source,
        step=step,
    )


def test_ages_are_counted_per_response() -> None:
    samples = [sample(5, [5]), sample(5, [5, 5]), sample(3, [3]), sample(1, [1])]
    replayed = torch.tensor([False, True, True, True])
    assert data_metrics(samples, replayed, 5) == {
        "buffer/fresh_fraction": 0.25,
        "buffer/age_mean": 1.5,
        "buffer/age_max": 4.0,
    }


def test_staleness_is_counted_per_token_of_the_policy() -> None:
    samples = [sample(5, [5, 4, 4]), sample(3, [2]), sample(1, [1], source="expert")]
    assert staleness(samples, 5) == {
        "off_policy/staleness_mean": 1.25,
        "off_policy/staleness_max": 3.0,
    }
    assert staleness([sample(1, [1], source="expert")], 5) == {}


def test_the_peak_is_in_mebibytes_of_this_process() -> None:
    """torch alone takes more than 50 MiB and no test machine has 10 TiB."""
    assert 50 < peak_memory_mb(torch.device("cpu")) < 10 * 2**20


def test_rewards_are_averaged_by_source_too() -> None:
    tally = RolloutTally()
    for source, reward in (("a/b", 1.0), ("a/b", 0.0), ("c", 1.0), (None, 0.0), ("c", None)):
        tally.count(generation(2, "stop"), reward, {}, [f"source/{source}"] if source else [])
    found = tally.metrics()
    assert found["reward/source/a/b/mean"] == 0.5 and found["reward/source/c/mean"] == 1.0
    assert sum(key.startswith("reward/source/") for key in found) == 2
