"""The four surrogates of OPMD by hand."""

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
        ("opmd", {"tau": 0.5}, ((2 + 0.25 * 1) + (-3 + 0.25 * 4)) / 2),
        ("opmd", {"tau": 0.5, "log_ratio_clamp": 0.5}, (2 + (-3 + 0.25 * 1.5**2)) / 2),
        ("opmd_simple", {}, (2 - 3) / 5 / 2),
        ("opmd_simple", {"tau": 0.5}, (2 - 3) / 5 / 1.5),
        ("opmd_kimi_token", {"tau": 0.2}, (2 - 3 + 0.1 * 4) / 5),
        ("opmd_kimi_token", {"tau": 0.2, "log_ratio_clamp": 0.5}, (2 - 3 + 0.1 * 1.25) / 5),
        ("opmd_pairwise", {"tau": 0.5}, (1.5 + 2) ** 2 / 4),
        ("opmd_pairwise", {"tau": 0.5, "log_ratio_clamp": 0.5}, (1 + 1.75) ** 2 / 4),
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
    ("name", "of_two"),
    [
        ("opmd_pairwise", 3.0625),
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


@pytest.mark.parametrize(("counted", "value"), [(True, 22.25 / 3 - 3.5**2 / 9), (False, 1.75**2)])
def test_an_empty_response_that_counts_stands_in_its_groups_variance_with_its_advantage_alone(
    counted: bool, value: float
) -> None:
    """a = 1.5, -2 and, if it counts, 4: their mean square less the square of their mean."""
    loss = build("loss", "opmd_pairwise", count_empty_rows=counted, tau=0.5)
    logp, batch = responses([*TWO, [math.nan] * 3], [1.0, -1.0, 4.0], to=loss.needs)
    assert float(loss_value(loss, logp, batch)[0]) == pytest.approx(value)


def test_kimis_opmd_on_fresh_data_is_reinforce() -> None:
    """The quadratic pull has no slope at pi = behavior."""
    logp, batch = examples(BEHAVIOR)
    fresh = replace(batch, behavior_logp=logp)
    reinforce = build("loss", "asymre", aggregation="seq-mean-token-sum")
    expected = value_and_grad(reinforce, logp, fresh)[1]
    assert close([value_and_grad(build("loss", "opmd", tau=0.7), logp, fresh)[1]], [expected])
