"""RePO and SPEAR by hand: new and replayed responses in one batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.errors import UserError
from rlkit.interfaces import PolicyLoss
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.rows import near, old_and_new, stored_rows, terms_of

PARTED = ["repo", "spear"]


def as_ppo(loss: PolicyLoss[Any]) -> PolicyLoss[Any]:
    """PPO with the settings of a loss that has all of PPO's."""
    own = build("loss", "ppo").config.model_dump()
    return build("loss", "ppo", **{field: getattr(loss.config, field) for field in own})


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_repos_value_and_gradient(weight: float) -> None:
    """Fresh: -(1.1 + 1.2) / 2. Replayed: (0.8 + 1) / 2 and -(1 + 2.4) / 2, the mean is -0.4."""
    logp, batch = old_and_new()
    loss = build("loss", "repo", replay_weight=weight)
    value, gradient = value_and_grad(loss, logp, batch)
    assert value.item() == pytest.approx(-1.15 - 0.4 * weight)
    fresh, old = -1.1 / 2, weight / 4
    assert gradient.tolist() == near([[fresh, 0], [0, old], [-2 * 0.5 * old, 0]])
    metrics = loss_value(loss, logp, batch)[1]
    assert metrics["clip_fraction"] == pytest.approx(3 / 6)


def test_spear_sums_tokens_over_a_constant_length_and_clips_widely() -> None:
    """Ratio 1.25 is inside the upper clip at 1.28; a bad token at ratio 11 stops at 10 |A|.

    Fresh: -(1.25 + 1.28) of one response. Replayed: 10 + 1.1 and, of one token, -0.9, halved.
    """
    logp, batch = stored_rows(
        [[1.25, 1.5], [11.0, 1.1], [0.9, 7.0]], [[1.0], [-1.0], [1.0]], [0, 1, 1]
    )
    batch.mask[2, 1] = False
    loss = build("loss", "spear", norm_length=20)
    value, gradient = value_and_grad(loss, logp, batch)
    assert value.item() == pytest.approx((-(1.25 + 1.28) + (10 + 1.1 - 0.9) / 2) / 20)
    expected = [[-1.25 / 20, 0], [0, 1.1 / 40], [-0.9 / 40, 0]]
    assert gradient.tolist() == near(expected)


def test_the_ratio_is_to_the_policy_that_sampled() -> None:
    """The stored log-probs, whatever the policy at the start of the step says of the tokens."""
    for name in PARTED:
        loss = build("loss", name)
        assert loss.needs == {"behavior"}
        logp, batch = old_and_new()
        moved = replace(batch, prox_logp=batch.prox_logp - 0.7)
        assert value_and_grad(loss, logp, moved)[0] == value_and_grad(loss, logp, batch)[0]


@pytest.mark.parametrize("name", PARTED)
def test_without_replay_weight_it_is_ppo_on_the_new_responses_alone(name: str) -> None:
    loss = build("loss", name, replay_weight=0.0)
    logp, batch = examples(loss.needs)
    fresh = torch.tensor([0, 1, 4, 5])
    assert batch.replayed.tolist() == [False, False, True, True] * 2
    value, gradient = value_and_grad(loss, logp, batch)
    expected = value_and_grad(as_ppo(loss), logp[fresh], batch.rows(fresh))
    assert value.item() == pytest.approx(expected[0].item(), rel=1e-12)
    torch.testing.assert_close(gradient[fresh], expected[1], rtol=1e-12, atol=0)
    assert (gradient[batch.replayed] == 0).all() and expected[1].any()


@pytest.mark.parametrize("name", PARTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_new_responses_only_are_ppos_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    """The other part is empty and adds exactly 0."""
    loss = build("loss", name)
    logp, batch = examples(loss.needs)
    single = {f: getattr(batch, f).to(dtype) for f in ("advantage", "behavior_logp")}
    batch = replace(batch, **single, replayed=torch.zeros_like(batch.replayed))
    found, expected = (value_and_grad(x, logp.to(dtype), batch) for x in (loss, as_ppo(loss)))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert expected[1].any()


@pytest.mark.parametrize("name", PARTED)
def test_replayed_responses_only_are_ppo_times_their_weight(name: str) -> None:
    loss = build("loss", name, replay_weight=0.25)
    logp, batch = examples(loss.needs)
    batch = replace(batch, replayed=torch.ones_like(batch.replayed))
    value, gradient = value_and_grad(loss, logp, batch)
    expected = value_and_grad(as_ppo(loss), logp, batch)
    torch.testing.assert_close(value, 0.25 * expected[0])
    torch.testing.assert_close(gradient, 0.25 * expected[1])


@pytest.mark.parametrize("name", PARTED)
@pytest.mark.parametrize(
    "aggregation", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"]
)
@pytest.mark.parametrize("part", ["new", "replayed"])
def test_each_part_is_averaged_over_its_own_rows(name: str, aggregation: str, part: str) -> None:
    """Three copies of the rows of one part weigh together what the rows weigh alone."""
    loss = build("loss", name, aggregation=aggregation, replay_weight=0.7)
    logp, batch = examples(loss.needs)
    copied = ~batch.replayed == (part == "new")
    more = torch.cat([torch.arange(8), *[copied.nonzero()[:, 0]] * 2])
    value, gradient = value_and_grad(loss, logp, batch)
    again, copies = value_and_grad(loss, logp[more], batch.rows(more))
    assert again.item() == pytest.approx(value.item(), rel=1e-12)
    share = torch.where(copied, 1 / 3, 1.0).double()
    torch.testing.assert_close(copies[:8], share[:, None] * gradient)


@pytest.mark.parametrize("name", PARTED)
@pytest.mark.parametrize("aggregation", ["seq-mean-token-mean", "seq-mean-token-sum-norm"])
def test_empty_responses_that_count_do_so_in_their_own_part(name: str, aggregation: str) -> None:
    """Both parts are PPO on their rows, of which one new and two replayed ones are empty."""
    loss = build("loss", name, aggregation=aggregation, replay_weight=0.7, count_empty_rows=True)
    logp, batch = examples(loss.needs)
    batch = replace(batch, mask=batch.mask.index_fill(0, torch.tensor([0, 2, 3]), False))
    value, gradient = value_and_grad(loss, logp, batch)
    expected, pushes = torch.zeros_like(value), torch.zeros_like(gradient)
    for part, weight in ((~batch.replayed, 1.0), (batch.replayed, 0.7)):
        rows = part.nonzero()[:, 0]
        own = value_and_grad(as_ppo(loss), logp[rows], batch.rows(rows))
        expected, pushes[rows] = expected + weight * own[0], weight * own[1]
    assert close((expected, pushes), (value, gradient))


@pytest.mark.parametrize(
    "name",
    [
        "repo",
        "spear",
    ],
)
def test_what_is_replayed_is_no_matter_of_age_and_no_demonstration_is_taken(name: str) -> None:
    """Fresh responses of weights that lag by any number of steps are as fresh as others."""
    loss = build("loss", name)
    assert not loss.accepts_expert and loss.scope == "token"
    logp, batch = examples(loss.needs)
    found = [
        value_and_grad(loss, logp, replace(batch, age=torch.tensor([age, 0] * 4)))[0].item()
        for age in (0, 1, 9)
    ]
    assert found[0] == found[1] == found[2]
    fresh = replace(batch, replayed=torch.zeros_like(batch.replayed))
    assert value_and_grad(loss, logp, fresh)[0].item() != found[0]


@pytest.mark.parametrize("name", PARTED)
def test_a_correction_weighs_new_and_replayed_rows(name: str) -> None:
    """prox / behavior is 1.5 on all tokens: so is each term's factor."""
    logp, batch = old_and_new()
    batch = replace(batch, prox_logp=batch.behavior_logp + math.log(1.5))
    loss = build("loss", name, replay_weight=0.3)
    plain = terms_of(loss, logp, batch, None)
    weighed = terms_of(loss, logp, batch, build("correction", "tis"))
    assert list(plain) == list(weighed) == ["policy", "policy_replay"]
    for term in plain:
        torch.testing.assert_close(weighed[term].value, 1.5 * plain[term].value)
        assert torch.equal(weighed[term].mask, plain[term].mask)
        assert weighed[term].weight == plain[term].weight
    assert [term.weight for term in plain.values()] == [1.0, 0.3]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("repo", {"replay_weight": -0.1}),
        ("spear", {"replay_weight": -0.1}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)
