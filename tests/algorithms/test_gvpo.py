"""GVPO and AGRO by hand, and what they equal."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.one_group import BEHAVIOR, TWO, joined, responses


@pytest.mark.parametrize(
    ("name", "fields", "value"),
    [
        ("gvpo", {"beta": 0.5}, ((-0.75 - 1) ** 2 + (0.75 + 1) ** 2) / 2),
        ("gvpo", {"beta": 0.5, "log_ratio_clamp": 0.5}, 1.375**2),
        ("agro", {"beta": 0.5}, (1.5 + 2) ** 2 / 4 / 2),
        ("agro", {"beta": 0.5, "log_ratio_clamp": 0.5}, (1 + 1.75) ** 2 / 4 / 2),
    ],
)
def test_values_of_two_responses_that_compare_a_reward_with_a_log_ratio(
    name: str, fields: dict[str, float], value: float
) -> None:
    loss = build("loss", name, **fields)
    logp, batch = responses(TWO, [1.0, -1.0], to=loss.needs or BEHAVIOR)
    assert float(loss_value(loss, logp, batch)[0]) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "of_two"),
    [
        ("gvpo", 3.0625),
        ("agro", 1.53125),
    ],
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
    ("counted", "value"), [(True, (22.25 / 3 - 3.5**2 / 9) / 2), (False, 1.75**2 / 2)]
)
def test_an_empty_response_that_counts_stands_in_its_groups_variance_with_its_advantage_alone(
    counted: bool, value: float
) -> None:
    """a = 1.5, -2 and, if it counts, 4: their mean square less the square of their mean."""
    loss = build("loss", "agro", count_empty_rows=counted, beta=0.5)
    logp, batch = responses([*TWO, [math.nan] * 3], [1.0, -1.0, 4.0], to=loss.needs)
    assert float(loss_value(loss, logp, batch)[0]) == pytest.approx(value)


@pytest.mark.parametrize(
    ("counted", "errors", "others"),
    [(True, [-2 / 3 - 1, 5 / 6 + 1, -1 / 6], 2), (False, [-1.75, 1.75], 1)],
)
def test_gvpo_by_the_recipe_sums_over_the_minibatch(
    counted: bool, errors: list[float], others: int
) -> None:
    """Two groups of three, one response in each without tokens: S = -1, 2 and 0, beta S - mean =
    -2/3, 5/6, -1/6; the sum of their halved squares over K - 1 = 2, twice. If it does not count:
    beta S - mean = -3/4, 3/4, and K - 1 = 1.
    """
    loss = build("loss", "gvpo", beta=0.5, reduction="batch-sum", count_empty_rows=counted)
    logp, group = responses([*TWO, [math.nan] * 3], [1.0, -1.0, 0.0])
    value, gradient = value_and_grad(loss, torch.cat([logp, logp]), joined(group, group))
    assert float(value) == pytest.approx(2 * sum(0.5 * e * e for e in errors) / others)
    assert gradient[0, 0] == pytest.approx(0.5 * errors[0] / others)
    assert gradient[4].tolist() == pytest.approx([0.5 * errors[1] / others] * 3)


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


def test_agro_to_the_behavior_policy_is_half_of_pairwise_opmd() -> None:
    logp, batch = examples(BEHAVIOR)
    batch = replace(batch, anchor_logp={"base": batch.behavior_logp})
    agro = value_and_grad(build("loss", "agro", beta=0.3), logp, batch)
    pairwise = value_and_grad(build("loss", "opmd_pairwise", tau=0.3), logp, batch)
    assert close(agro, [x / 2 for x in pairwise])
