"""RePO, SPEAR and ExGRPO by hand: new and replayed responses in one batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import Corrected, LossBatch, PolicyTerms, Term
from rlkit.errors import UserError
from rlkit.interfaces import Correction, PolicyLoss
from rlkit.objective import Objective, loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad

PARTED = ["repo", "spear"]


def double(x: Any) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def rows(ratio: Any, advantage: Any, age: list[int]) -> tuple[Tensor, LossBatch]:
    """Responses whose ratio to behavior and to prox is this, at log-prob -1: [B, T]."""
    delta = double(ratio).log()
    logp = torch.full_like(delta, -1.0)
    anything = examples(frozenset())[1].rows(torch.zeros(len(delta), dtype=torch.long))
    return logp, replace(
        anything,
        mask=torch.ones_like(delta, dtype=torch.bool),
        advantage=double(advantage).expand_as(delta),
        behavior_logp=logp - delta,
        prox_logp=logp - delta,
        age=torch.tensor(age),
    )


def near(expected: Any) -> Any:
    """Nested lists, to 1e-9."""
    return [pytest.approx(row, abs=1e-12, rel=1e-9) for row in expected]


def as_ppo(loss: PolicyLoss[Any]) -> PolicyLoss[Any]:
    """PPO with the settings of a loss that has all of PPO's."""
    own = build("loss", "ppo").config.model_dump()
    return build("loss", "ppo", **{field: getattr(loss.config, field) for field in own})


def old_and_new() -> tuple[Tensor, LossBatch]:
    """One new response of two tokens, and two replayed ones."""
    ratio = [[1.1, 1.5], [0.5, 1.0], [0.5, 3.0]]
    return rows(ratio, [[1.0], [-1.0], [2.0]], [0, 1, 4])


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
    logp, batch = rows([[1.25, 1.5], [11.0, 1.1], [0.9, 7.0]], [[1.0], [-1.0], [1.0]], [0, 2, 2])
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
    fresh = torch.tensor([0, 3, 6])
    assert batch.age.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    value, gradient = value_and_grad(loss, logp, batch)
    expected = value_and_grad(as_ppo(loss), logp[fresh], batch.rows(fresh))
    assert value.item() == pytest.approx(expected[0].item(), rel=1e-12)
    torch.testing.assert_close(gradient[fresh], expected[1], rtol=1e-12, atol=0)
    assert (gradient[batch.age > 0] == 0).all() and expected[1].any()


@pytest.mark.parametrize("name", PARTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_new_responses_only_are_ppos_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    """The other part is empty and adds exactly 0."""
    loss = build("loss", name)
    logp, batch = examples(loss.needs)
    single = {f: getattr(batch, f).to(dtype) for f in ("advantage", "behavior_logp")}
    batch = replace(batch, **single, age=torch.zeros_like(batch.age))
    found, expected = (value_and_grad(x, logp.to(dtype), batch) for x in (loss, as_ppo(loss)))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert expected[1].any()


@pytest.mark.parametrize("name", PARTED)
def test_replayed_responses_only_are_ppo_times_their_weight(name: str) -> None:
    loss = build("loss", name, replay_weight=0.25)
    logp, batch = examples(loss.needs)
    batch = replace(batch, age=torch.ones_like(batch.age))
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
    copied = (batch.age == 0) == (part == "new")
    more = torch.cat([torch.arange(8), *[copied.nonzero()[:, 0]] * 2])
    value, gradient = value_and_grad(loss, logp, batch)
    again, copies = value_and_grad(loss, logp[more], batch.rows(more))
    assert again.item() == pytest.approx(value.item(), rel=1e-12)
    share = torch.where(copied, 1 / 3, 1.0).double()
    torch.testing.assert_close(copies[:8], share[:, None] * gradient)


@pytest.mark.parametrize("name", [*PARTED, "exgrpo"])
def test_a_response_is_replayed_from_age_one_on_and_no_demonstration_is_taken(name: str) -> None:
    """Age 0 is this step's; how old beyond 1 does not matter."""
    loss = build("loss", name)
    assert not loss.accepts_expert and loss.scope == "token"
    logp, batch = examples(loss.needs)
    found = [
        value_and_grad(loss, logp, replace(batch, age=torch.tensor([age, 0] * 4)))[0].item()
        for age in (0, 1, 9)
    ]
    assert found[1] == found[2] != found[0]


# ---- corrections


class Halve(Correction):
    """Weight one half on every token, an expert's too."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        return Corrected(batch=batch, weight=torch.full_like(batch.behavior_logp, 0.5))


def terms_of(
    loss: PolicyLoss[Any], logp: Tensor, batch: LossBatch, correction: Correction[Any] | None
) -> dict[str, Term]:
    stack = [] if correction is None else [("it", correction)]
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    out = Objective(loss, corrections=stack).output(policy, batch, torch.ones_like(batch.expert))
    return {term.name: term for term in out.terms}


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


def test_a_correction_does_not_weigh_chords_demonstrations() -> None:
    logp, batch = old_and_new()
    batch = replace(batch, expert=torch.tensor([False, True, False]))
    loss = build("loss", "chord")
    plain, halved = (terms_of(loss, logp, batch, c) for c in (None, Halve()))
    assert list(plain) == ["policy", "expert"]
    assert torch.equal(halved["policy"].value, 0.5 * plain["policy"].value)
    assert torch.equal(halved["expert"].value, plain["expert"].value)
    assert plain["expert"].value[1].all()


# ---- ExGRPO


@pytest.mark.parametrize(
    ("w", "fields", "weight"),
    [
        (1.0, {}, 0.1 / 1.1**2),
        (0.1, {}, 0.25),
        (0.05, {}, 0.1 * 0.05 / 0.15**2),
        (5.0, {}, 0.1 * 5 / 5.1**2),
        (0.5, {"shaping_beta": 0.5}, 0.25),
        (1.0, {"shaping_beta": 1.0}, 0.25),
    ],
)
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_the_weight_of_a_replayed_token(
    w: float, fields: dict[str, float], weight: float, advantage: float
) -> None:
    """beta w / (w + beta)^2 on grad log pi, never clipped: 0.0826 at w = 1; the value is w / (w +
    beta)."""
    logp, batch = rows([[w]], [[advantage]], [3])
    value, gradient = value_and_grad(build("loss", "exgrpo", **fields), logp, batch)
    beta = fields.get("shaping_beta", 0.1)
    assert value.item() == pytest.approx(-advantage * w / (w + beta))
    assert gradient.item() == pytest.approx(-advantage * weight)


def test_the_weight_is_at_most_a_quarter_where_w_is_beta() -> None:
    """Over ratios 1e-4 to 1e4, with beta = 0.1 among them."""
    w = 10 ** torch.linspace(-4, 4, 81, dtype=torch.float64)
    logp, batch = rows(w[:, None], 1.0, [1] * 81)
    loss = build("loss", "exgrpo", aggregation="token-sum")
    weight = -value_and_grad(loss, logp, batch)[1][:, 0]
    assert float(w[weight.argmax()]) == pytest.approx(0.1)
    assert float(weight.max()) == pytest.approx(0.25)


@pytest.mark.parametrize("fields", [{}, {"dual_clip": 2.0}, {"delta": 1.5}, {"clip_low": 0.9}])
def test_exgrpos_new_rows_are_ppos_beside_replayed_ones(fields: dict[str, float]) -> None:
    """All tokens are averaged together: alone or not, a new row's gradient is the one PPO gives."""
    loss = build("loss", "exgrpo", **fields)
    logp, batch = rows([[1.1, 1.5], [0.5, 3.0], [1.5, 0.5]], [[1.0], [-1.0], [1.0]], [0, 0, 1])
    expected = value_and_grad(build("loss", "ppo", **fields), logp, batch)[1]
    found = value_and_grad(loss, logp, batch)[1]
    assert torch.equal(found[:2], expected[:2]) and not torch.equal(found[2], expected[2])
    fresh = replace(batch, age=torch.zeros_like(batch.age))
    a, b = (value_and_grad(x, logp, fresh) for x in (loss, build("loss", "ppo", **fields)))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


@pytest.mark.parametrize("fields", [{}, {"dual_clip": 2.0, "delta": 1.5}])
def test_without_the_clip_new_tokens_have_the_plain_ratio(fields: dict[str, float]) -> None:
    """r A at any r, no bound of the surrogate left, and none counted."""
    logp, batch = rows([[0.1, 5.0], [0.1, 5.0]], [[1.0], [-1.0]], [0, 0])
    loss = build("loss", "exgrpo", on_policy_clip=False, **fields)
    value, gradient = value_and_grad(loss, logp, batch)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert gradient.tolist() == near([[-0.1 / 4, -5 / 4], [0.1 / 4, 5 / 4]])
    assert loss_value(loss, logp, batch)[1]["clip_fraction"] == 0
    clipped = loss_value(build("loss", "exgrpo"), logp, batch)[1]
    assert clipped["clip_fraction"] == pytest.approx(2 / 4)


def test_exgrpo_divides_by_behavior_where_it_replays_and_by_prox_elsewhere() -> None:
    """To prox the ratios are 1.1, to behavior 0.1; replayed tokens never count as clipped."""
    logp, batch = rows([[1.1], [1.1]], 1.0, [0, 1])
    batch = replace(batch, behavior_logp=logp - math.log(0.1))
    loss = build("loss", "exgrpo", clip_high=0.05)
    assert loss.needs == {"prox", "behavior"}
    assert value_and_grad(loss, logp, batch)[1].tolist() == near([[0], [-0.25 / 2]])
    assert loss_value(loss, logp, batch)[1]["clip_fraction"] == pytest.approx(1 / 2)
    to_behavior = build("loss", "exgrpo", ratio_to="behavior")
    assert value_and_grad(to_behavior, logp, batch)[1].tolist() == near([[-0.1 / 2], [-0.25 / 2]])


@pytest.mark.parametrize("clamp", [20.0, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_replayed_log_ratios_of_ten_thousand_do_not_overflow(
    clamp: float | None, dtype: torch.dtype
) -> None:
    """The weight ends at 0 and at 1, without gradient, also where no clamp bounds the ratio."""
    logp, batch = rows([[1.0, 1.0], [1.0, 1.0]], 1.0, [1, 0])
    behavior = batch.behavior_logp.to(dtype)
    behavior[0] = torch.tensor([1e4, -1e4])
    batch = replace(
        batch,
        advantage=batch.advantage.to(dtype),
        behavior_logp=behavior,
        prox_logp=torch.where((batch.age > 0)[:, None], behavior, batch.prox_logp.to(dtype)),
    )
    loss = build("loss", "exgrpo", log_ratio_clamp=clamp)
    value, gradient = value_and_grad(loss, logp.to(dtype), batch)
    assert value.item() == pytest.approx(-(0 + 1 + 1 + 1) / 4)
    assert gradient.tolist() == near([[0, 0], [-0.25, -0.25]])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("repo", {"replay_weight": -0.1}),
        ("spear", {"replay_weight": -0.1}),
        ("exgrpo", {"shaping_beta": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)
