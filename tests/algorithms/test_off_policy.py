"""The explicitly off-policy losses by hand, their limits, and the losses they turn into."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, LossBatch
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from rlkit.training.objective import loss_value

E = math.exp
BEHAVIOR, PROX, REFERENCE = (frozenset({n}) for n in ("behavior", "prox", "anchor:base"))


def responses(
    log_ratio: list[list[float]], advantage: list[float], to: frozenset[str] = BEHAVIOR
) -> tuple[Tensor, LossBatch]:
    """Responses at log-prob -1 with these log-ratios to one policy; NaN is a masked token.

    They are one group. The other policies' log-probs are NaN, so that reading them would show.
    """
    delta = torch.tensor(log_ratio, dtype=torch.float64)
    logp, mask = torch.full_like(delta, -1.0), ~delta.isnan()
    unknown = torch.full_like(delta, math.nan)
    other = torch.where(mask, logp - delta, 7.0)
    batch = examples(frozenset())[1].rows(torch.zeros(len(delta), dtype=torch.long))
    return logp, replace(
        batch,
        mask=mask,
        advantage=torch.tensor(advantage, dtype=torch.float64)[:, None].expand_as(delta),
        behavior_logp=other if to == BEHAVIOR else unknown,
        prox_logp=other if to == PROX else unknown,
        anchor_logp={"base": other} if to == REFERENCE else {},
        group=torch.zeros(len(delta), dtype=torch.long),
    )


def joined(*parts: LossBatch) -> LossBatch:
    """Several one-group batches as one, each a group of its own."""
    fields = {
        f: torch.cat([getattr(part, f) for part in parts])
        for f in LossBatch.__dataclass_fields__
        if f not in ("anchor_logp", "group", "rewards", "extras")
    }
    names = parts[0].anchor_logp
    sizes = torch.tensor([len(part.mask) for part in parts])
    return LossBatch(
        **fields,
        anchor_logp={name: torch.cat([part.anchor_logp[name] for part in parts]) for name in names},
        group=torch.arange(len(parts)).repeat_interleave(sizes),
    )


TWO = [[0.5, -1.5, math.nan], [0.5, 0.5, 1.0]]
"""Sums S = -1 and 2, with advantages 1 and -1; lengths 2 and 3."""


@pytest.mark.parametrize(
    ("name", "fields", "value"),
    [
        ("asymre", {}, (1 * 2 - 1 * 3) / 2),
        ("opmd", {"tau": 0.5}, ((2 + 0.25 * 1) + (-3 + 0.25 * 4)) / 2),
        ("opmd", {"tau": 0.5, "log_ratio_clamp": 0.5}, (2 + (-3 + 0.25 * 1.5**2)) / 2),
        ("opmd_simple", {}, (2 - 3) / 5 / 2),
        ("opmd_simple", {"tau": 0.5}, (2 - 3) / 5 / 1.5),
        ("opmd_kimi_token", {"tau": 0.2}, (2 - 3 + 0.1 * 4) / 5),
        ("opmd_kimi_token", {"tau": 0.2, "log_ratio_clamp": 0.5}, (2 - 3 + 0.1 * 1.25) / 5),
        ("opmd_pairwise", {"tau": 0.5}, (1.5 + 2) ** 2 / 4),
        ("opmd_pairwise", {"tau": 0.5, "log_ratio_clamp": 0.5}, (1 + 1.75) ** 2 / 4),
        ("oapl", {"beta2": 0.5}, ((-0.5 - 1) ** 2 + (1 + 1) ** 2) / 2),
        ("oapl", {"beta2": 0.5, "log_ratio_clamp": 0.5}, (1 + 1.75**2) / 2),
        ("gvpo", {"beta": 0.5}, ((-0.75 - 1) ** 2 + (0.75 + 1) ** 2) / 2),
        ("gvpo", {"beta": 0.5, "log_ratio_clamp": 0.5}, 1.375**2),
        ("agro", {"beta": 0.5}, (1.5 + 2) ** 2 / 4 / 2),
        ("agro", {"beta": 0.5, "log_ratio_clamp": 0.5}, (1 + 1.75) ** 2 / 4 / 2),
        ("dro", {"beta": 0.2}, (2 - 3 + 0.1 * 4) / 5),
        ("dro", {"beta": 0.2, "log_ratio_clamp": 0.5}, (2 - 3 + 0.1 * 1.25) / 5),
    ],
)
def test_values_of_two_responses_that_compare_a_reward_with_a_log_ratio(
    name: str, fields: dict[str, float], value: float
) -> None:
    loss = build("loss", name, **fields)
    logp, batch = responses(TWO, [1.0, -1.0], to=loss.needs or BEHAVIOR)
    assert float(loss_value(loss, logp, batch)[0]) == pytest.approx(value)


@pytest.mark.parametrize(
    ("variant", "scope", "needs"),
    [
        ("kimi", "token", {"behavior"}),
        ("simple", "token", set()),
        ("kimi_token", "token", {"behavior"}),
        ("pairwise", "group", {"behavior"}),
    ],
)
def test_opmd_asks_for_what_its_variant_reads(variant: str, scope: str, needs: set[str]) -> None:
    loss = build("loss", "opmd", variant=variant)
    assert (loss.scope, loss.needs) == (scope, needs)


@pytest.mark.parametrize(
    ("name", "of_two"), [("opmd_pairwise", 3.0625), ("gvpo", 3.0625), ("agro", 1.53125)]
)
def test_groups_count_alike_and_a_group_of_one_contributes_nothing(
    name: str, of_two: float
) -> None:
    """gvpo divides by K - 1, which is 0 there."""
    loss = build("loss", name, **{"tau" if "opmd" in name else "beta": 0.5})
    logp, pair = responses(TWO, [1.0, -1.0], to=loss.needs)
    _, alone = responses([[0.3, 0.2, 0.1]], [1.0], to=loss.needs)
    value, gradient = value_and_grad(loss, torch.cat([logp, logp[:1]]), joined(pair, alone))
    assert float(value) == pytest.approx(of_two / 2)
    assert (gradient[2] == 0).all() and (gradient[0, :2] != 0).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("opmd_pairwise", 22.25 / 3 - 3.5**2 / 9), ("agro", (22.25 / 3 - 3.5**2 / 9) / 2)],
)
@pytest.mark.parametrize("counted", [True, False])
def test_an_empty_response_stands_in_its_groups_variance_with_its_advantage_alone(
    name: str, value: float, counted: bool
) -> None:
    """a = 1.5, -2 and 4: their mean square less the square of their mean."""
    loss = build(
        "loss", name, count_empty_rows=counted, **{"tau" if "opmd" in name else "beta": 0.5}
    )
    logp, batch = responses([*TWO, [math.nan] * 3], [1.0, -1.0, 4.0], to=loss.needs)
    assert float(loss_value(loss, logp, batch)[0]) == pytest.approx(value)


@pytest.mark.parametrize("counted", [True, False])
def test_gvpo_by_the_recipe_sums_over_the_minibatch(counted: bool) -> None:
    """Two groups of three, one response in each without tokens: S = -1, 2 and 0, beta S - mean =
    -2/3, 5/6, -1/6; the sum of their halved squares over K - 1 = 2, twice.
    """
    loss = build("loss", "gvpo", beta=0.5, reduction="batch-sum", count_empty_rows=counted)
    logp, group = responses([*TWO, [math.nan] * 3], [1.0, -1.0, 0.0])
    value, gradient = value_and_grad(loss, torch.cat([logp, logp]), joined(group, group))
    errors = [-2 / 3 - 1, 5 / 6 + 1, -1 / 6][: 3 if counted else 2]
    assert float(value) == pytest.approx(2 * sum(0.5 * e * e for e in errors) / 2)
    assert gradient[0, 0] == pytest.approx(0.5 * errors[0] / 2)
    assert gradient[4].tolist() == pytest.approx([0.5 * errors[1] / 2] * 3)


def test_gvpo_holds_the_groups_mean_fixed() -> None:
    """Advantages 1 and 0 are not centred: differentiating the mean would move the errors -1.75 and
    0.75 by their own mean.
    """
    logp, batch = responses(TWO, [1.0, 0.0])
    gradient = value_and_grad(build("loss", "gvpo", beta=0.5), logp, batch)[1]
    assert gradient[0].tolist() == pytest.approx([0.5 * -1.75] * 2 + [0])
    assert gradient[1].tolist() == pytest.approx([0.5 * 0.75] * 3)


def test_gvpo_has_the_gradient_of_pairwise_opmd_times_half_k_over_k_minus_one() -> None:
    """Both pull the centred log-ratios to the centred rewards; groups of 4, so 4/6."""
    logp, batch = examples(BEHAVIOR)
    gvpo = value_and_grad(build("loss", "gvpo", beta=0.3), logp, batch)[1]
    pairwise = value_and_grad(build("loss", "opmd_pairwise", tau=0.3), logp, batch)[1]
    assert close([gvpo], [pairwise * 4 / 6])


def test_agro_to_the_behaviour_policy_is_half_of_pairwise_opmd() -> None:
    logp, batch = examples(BEHAVIOR)
    batch = replace(batch, anchor_logp={"base": batch.behavior_logp})
    agro = value_and_grad(build("loss", "agro", beta=0.3), logp, batch)
    pairwise = value_and_grad(build("loss", "opmd_pairwise", tau=0.3), logp, batch)
    assert close(agro, [x / 2 for x in pairwise])


def test_kimis_opmd_on_fresh_data_is_reinforce() -> None:
    """The quadratic pull has no slope at pi = behavior."""
    logp, batch = examples(BEHAVIOR)
    fresh = replace(batch, behavior_logp=logp)
    reinforce = build("loss", "asymre", aggregation="seq-mean-token-sum")
    expected = value_and_grad(reinforce, logp, fresh)[1]
    assert close([value_and_grad(build("loss", "opmd", tau=0.7), logp, fresh)[1]], [expected])


def advantage_of(name: str, batch: LossBatch, **fields: float) -> Tensor:
    """The advantage [B, T] that a part makes of the batch's rewards."""
    zeros = torch.zeros_like(batch.behavior_logp)
    given = AdvantageBatch(
        reward=batch.reward,
        rewards={},
        token_reward=zeros,
        greedy_reward=torch.zeros_like(batch.reward),
        mask=batch.mask,
        group=batch.group,
        age=batch.age,
        expert=batch.expert,
        values=zeros,
        behavior_logp=batch.behavior_logp,
        prox_logp=batch.prox_logp,
        anchor_logp={},
    )
    advantage: Tensor = build("advantage", name, **fields)(given).advantage
    return advantage


@pytest.mark.parametrize(
    ("beta1", "baseline"), [(1e7, lambda r: r.mean(-1)), (1e-4, lambda r: r.amax(-1))]
)
def test_oapl_centres_on_the_mean_for_large_beta1_and_on_the_best_for_small(
    beta1: float, baseline: Any
) -> None:
    """V* = beta1 log mean exp(R / beta1); examples hold R - mean in groups of four."""
    logp, batch = examples(BEHAVIOR)
    by_hand = batch.reward - baseline(batch.reward.view(2, 4)).repeat_interleave(4)
    direct = replace(batch, advantage=by_hand[:, None].expand_as(logp))
    composed = replace(batch, advantage=advantage_of("oapl", batch, beta1=beta1))
    loss = build("loss", "oapl", beta2=0.2)
    for a, b in zip(
        value_and_grad(loss, logp, composed), value_and_grad(loss, logp, direct), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=3e-4)


NONE = math.nan
STEADY = [math.log(r) for r in (1.1, 0.9, 1.2, 1.05)]


@pytest.mark.parametrize(
    ("hole", "fields", "weights"),
    [
        ((), {}, [1.1, 0.99, 1.08, 0.945]),
        ((), {"clip_high": 0.05}, [1.05, 0.99, 1.05, 0.945]),
        ((), {"clip_low": 0.03}, [1.1, 0.99, 1.08, 0.97]),
        ((), {"first_prefix": 0.8}, [0.88, 0.99, 1.08, 0.945]),
        ((1,), {}, [1.1, NONE, 1.28, 1.155]),
        ((0,), {}, [NONE, 0.9, 1.08, 0.945]),
        ((0, 1), {"first_prefix": 0.9}, [NONE, NONE, 1.08, 1.26]),
        ((), {"log_ratio_clamp": 0.01}, [E(0.01), 1.0, 1.0, 1.0]),
        ((), {"log_ratio_clamp": None}, [1.1, 0.99, 1.08, 0.945]),
    ],
)
def test_minpro_weighs_a_token_by_the_smallest_ratio_before_it(
    hole: tuple[int, ...], fields: dict[str, float], weights: list[float]
) -> None:
    """The first valid token's prefix is empty; masked tokens are in no prefix."""
    row = [NONE if t in hole else d for t, d in enumerate(STEADY)]
    logp, batch = responses([row], [2.0])
    loss = build("loss", "minpro", **fields)
    value, gradient = value_and_grad(loss, logp, batch)
    valid = [w for w in weights if not math.isnan(w)]
    assert float(value) == pytest.approx(2 * sum(valid) / len(valid))
    pushes = (-gradient[0] * len(valid) / 2).tolist()
    assert pushes == pytest.approx([0 if math.isnan(w) else w for w in weights])
    metrics = loss_value(loss, logp, batch)[1]
    assert metrics["weights"] == pytest.approx(sum(valid) / len(valid))
    cut = sum(w in (1.05, 0.97, 1.28) for w in valid)
    assert metrics["clip_fraction"] == pytest.approx(cut / len(valid))


def test_minpro_on_one_token_is_cispo() -> None:
    """Without a prefix the weight is the clipped ratio."""
    logp, batch = examples(BEHAVIOR)
    first = torch.zeros_like(batch.mask)
    first[:, 0] = True
    short = replace(batch, mask=first)
    fields = {"clip_low": 0.1, "clip_high": 0.1}
    cispo = build("loss", "cispo", ratio_to="behavior", **fields)
    found, expected = (
        value_and_grad(loss, logp, short) for loss in (build("loss", "minpro", **fields), cispo)
    )
    assert close(found, expected)


def three_policies() -> tuple[Tensor, LossBatch]:
    """pi / prox = 1.1, 1.3, 0.7, 5, and prox / behavior = 2, 0.5, 4, 1.5, with A = -1."""
    logp, batch = responses([[math.log(r) for r in (1.1, 1.3, 0.7, 5.0)]], [-1.0], to=PROX)
    weight = torch.tensor([[2.0, 0.5, 4.0, 1.5]], dtype=torch.float64)
    return logp, replace(batch, behavior_logp=batch.prox_logp - weight.log())


@pytest.mark.parametrize(
    ("fields", "weights", "surrogates"),
    [
        ({}, [2, 0.5, 4, 1.5], [1.1, 1.3, 0, 5]),
        ({"clip_low": 0.4}, [2, 0.5, 4, 1.5], [1.1, 1.3, 0.7, 5]),
        ({"dual_clip": 3.0}, [2, 0.5, 4, 1.5], [1.1, 1.3, 0, 0]),
        ({"is_max": 1.8}, [1.8, 0.5, 1.8, 1.5], [1.1, 1.3, 0, 5]),
        ({"is_min": 1.8}, [2, 1.8, 4, 1.8], [1.1, 1.3, 0, 5]),
        ({"is_max": 1.8, "is_mode": "mask"}, [0, 0.5, 0, 1.5], [1.1, 1.3, 0, 5]),
        ({"is_min": 1.8, "is_mode": "mask"}, [2, 0, 4, 0], [1.1, 1.3, 0, 5]),
        ({"imp_samp_max": 1.0}, [1 / 1.1, 0.5, 1 / 0.7, 0.2], [1.1, 1.3, 0, 5]),
        ({"imp_samp_max": 2.1}, [2.1 / 1.1, 0.5, 3, 0.42], [1.1, 1.3, 0, 5]),
        ({"log_ratio_clamp": math.log(1.5)}, [1.5, 1 / 1.5, 1.5, 1.5], [1.1, 1.3, 0, 0]),
    ],
)
def test_decoupled_ppo_weighs_the_clipped_surrogate_by_prox_over_behavior(
    fields: dict[str, Any], weights: list[float], surrogates: list[float]
) -> None:
    """The gradient of a token is its detached weight times u, or 0 where the clip has none."""
    logp, batch = three_policies()
    loss = build("loss", "decoupled_ppo", aggregation="token-sum", **fields)
    gradient = value_and_grad(loss, logp, batch)[1]
    expected = [w * u for w, u in zip(weights, surrogates, strict=True)]
    assert gradient[0].tolist() == pytest.approx(expected)
    metrics = loss_value(loss, logp, batch)[1]
    assert metrics["weights"] == pytest.approx(sum(weights) / 4)


def test_decoupled_ppo_clips_good_tokens_above() -> None:
    logp, batch = three_policies()
    good = replace(batch, advantage=-batch.advantage)
    for high, kept in ((0.2, [2.2, 0, 2.8, 0]), (0.4, [2.2, 0.65, 2.8, 0])):
        loss = build("loss", "decoupled_ppo", aggregation="token-sum", clip_high=high)
        assert (-value_and_grad(loss, logp, good)[1])[0].tolist() == pytest.approx(kept)
        cut = loss_value(loss, logp, good)[1]["clip_fraction"]
        assert cut == pytest.approx(kept.count(0) / 4)


def test_decoupled_ppo_is_the_form_its_authors_wrote() -> None:
    """max(-A pi / behavior, -A exp(clip(log pi / prox)) prox / behavior)."""
    logp, batch = examples(BEHAVIOR | PROX)
    a, near = batch.advantage, (logp - batch.prox_logp).clamp(math.log(0.9), math.log(1.1))
    free = -a * (logp - batch.behavior_logp).exp()
    held = -a * (near + batch.prox_logp - batch.behavior_logp).exp()
    loss = build("loss", "decoupled_ppo", clip_low=0.1, clip_high=0.1)
    value = loss_value(loss, logp, batch)[0]
    assert float(value) == pytest.approx(float(torch.max(free, held)[batch.mask].mean()))


def test_decoupled_ppo_refuses_bounds_the_wrong_way_round() -> None:
    with pytest.raises(UserError, match=r"is_min=3\.0 must not exceed is_max=2\.0"):
        build("loss", "decoupled_ppo", is_min=3.0, is_max=2.0)


@pytest.mark.parametrize(
    ("omega", "advantage", "pushed"),
    [
        (0.9, 1.0, [0.63, 0.9 * 0.8, 0.9 * 1.2, 0]),
        (0.9, -1.0, [0, 0.08, 0.12, 0.13]),
        (0.6, -1.0, [0, 0.4 * 0.8, 0.4 * 1.2, 0.4 * 1.3]),
    ],
)
def test_bppo_favours_good_tokens_by_omega(
    omega: float, advantage: float, pushed: list[float]
) -> None:
    """Ratios 0.7, 0.8, 1.2 and 1.3 around the bounds 0.75 and 1.25."""
    logp, batch = responses([[math.log(r) for r in (0.7, 0.8, 1.2, 1.3)]], [advantage], to=PROX)
    loss = build("loss", "bppo", omega=omega, aggregation="token-sum")
    gradient = value_and_grad(loss, logp, batch)[1]
    assert (-gradient / advantage)[0].tolist() == pytest.approx(pushed)
    assert loss_value(loss, logp, batch)[1]["clip_fraction"] == 0.25


def test_bppo_at_one_half_is_half_of_ppo() -> None:
    logp, batch = examples(PROX)
    fields = {"clip_low": 0.1, "clip_high": 0.05}
    bppo = value_and_grad(build("loss", "bppo", omega=0.5, **fields), logp, batch)
    ppo = value_and_grad(build("loss", "ppo", **fields), logp, batch)
    assert close([2 * x for x in bppo], ppo)


@pytest.mark.parametrize(
    ("name", "fields", "clip"),
    [
        ("remix", {"epsilon": 0.15}, 0.15),
        ("toppo", {"epsilon": 0.15}, 0.15),
        ("offpolicy_grpo", {"epsilon": 0.15, "aggregation": "token-mean"}, 0.15),
        ("geppo", {"policies": 1}, 0.2),
        ("geppo", {"epsilon_ppo": 0.3}, 0.15),
        ("decoupled_ppo", {"clip_low": 0.15, "clip_high": 0.15}, 0.15),
    ],
)
def test_on_fresh_data_the_losses_with_two_ratios_are_ppo(
    name: str, fields: dict[str, Any], clip: float
) -> None:
    """geppo's window is 2 / (M + 1) as wide: it expects M policies, 3 by default, in the batch."""
    logp, batch = examples(BEHAVIOR | PROX)
    fresh = replace(batch, prox_logp=batch.behavior_logp, age=batch.age * 0)
    ppo = build("loss", "ppo", clip_low=clip, clip_high=clip)
    found = value_and_grad(build("loss", name, **fields), logp, fresh)
    assert close(found, value_and_grad(ppo, logp, fresh))


def test_offpolicy_grpo_is_grpo_on_the_stored_log_probs() -> None:
    """With the centre at 1 the step's start is not read; with the centre of Eq. 6 it is."""
    logp, batch = examples(BEHAVIOR | PROX)
    one, moving = build("loss", "offpolicy_grpo"), build("loss", "offpolicy_grpo", centre="prox")
    assert one.needs == {"behavior"} and moving.needs == {"behavior", "prox"}
    grpo = value_and_grad(build("loss", "grpo", ratio_to="behavior"), logp, batch)
    assert close(value_and_grad(one, logp, batch), grpo)
    assert not close(value_and_grad(moving, logp, batch), grpo)
    assert one.config.lower_clamp_zero and build("loss", "toppo").config.lower_clamp_zero


def test_toppo_is_the_mix_policy_surrogate() -> None:
    """Raising a negative lower bound to 0 changes nothing, since no ratio is below 0."""
    logp, batch = examples(BEHAVIOR | PROX)
    for epsilon in (0.1, 1.5):
        found, expected = (
            value_and_grad(build("loss", name, epsilon=epsilon), logp, batch)
            for name in ("toppo", "remix")
        )
        assert close(found, expected)


@pytest.mark.parametrize(
    ("fields", "epsilon", "weights"),
    [
        ({}, 0.1, [1, 1, 1, 1]),
        ({"policies": 1}, 0.2, [1, 1, 1, 1]),
        ({"policies": 4, "epsilon_ppo": 0.3}, 0.12, [1, 1, 1, 1]),
        ({"policies": 4, "mixture": "optimal"}, 0.1, [1.6, 1.2, 0.8, 0.4]),
        ({"policies": 3, "mixture": "optimal"}, 0.1, [1, 1, 1, 1]),
        (
            {"policies": 2, "mixture": "optimal", "batch_multiple": 1.5, "kappa": 0.0},
            0.2 / (1.5 - math.sqrt(1 / 12)),
            [1 + math.sqrt(1 / 3), *[1 - math.sqrt(1 / 3)] * 3],
        ),
    ],
)
def test_geppo_is_remix_with_a_narrower_window_and_a_weight_by_age(
    fields: dict[str, Any], epsilon: float, weights: list[float]
) -> None:
    """epsilon_ppo over the mean place of the data; M nu_age, the oldest for still older data."""
    logp, batch = examples(BEHAVIOR | PROX)
    batch = replace(batch, age=torch.arange(8) % 5)
    loss = build("loss", "geppo", aggregation="token-sum", **fields)
    found = value_and_grad(loss, logp, batch)[1]
    remix = value_and_grad(
        build("loss", "remix", aggregation="token-sum", epsilon=epsilon), logp, batch
    )[1]
    by_age = torch.tensor([*weights, weights[-1]], dtype=torch.float64)[batch.age]
    assert close([found], [by_age[:, None] * remix])
    assert loss_value(loss, logp, batch)[1]["weight"] == pytest.approx(float(by_age.mean()))


def test_geppo_refuses_fewer_policies_than_batches() -> None:
    with pytest.raises(UserError, match=r"policies=2 must be at least batch_multiple=3\.0"):
        build("loss", "geppo", mixture="optimal", policies=2, batch_multiple=3.0)
    assert build("loss", "geppo", policies=2, batch_multiple=3.0).config.policies == 2
