"""RLOO's three forms by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import value_and_grad
from tests.algorithms.two_rows import DELTA, SUM, pushes, same, two_rows, value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rloo", {"variant": "ppo_sequence", "clip_low": 0.2, "clip_high": 0.2}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()


E1, E2 = (math.exp(x) for x in SUM)


@pytest.mark.parametrize(
    ("advantage", "fields", "kept"),
    [
        ([2.0, 3.0], {}, (0, 1)),
        ([2.0, -3.0], {}, (0, 0)),
        ([-2.0, 3.0], {}, (1, 1)),
        ([2.0, -3.0], {"clip_high": 0.4}, (1, 0)),
        ([2.0, -3.0], {"clip_low": 0.5}, (0, 1)),
    ],
)
def test_rloo_clips_the_product_of_a_responses_ratios(
    advantage: list[float], fields: dict[str, float], kept: tuple[int, int]
) -> None:
    """rho = e^0.3 and e^-0.6; the value of a response is not divided by its length."""
    a, b = advantage
    same(pushes("rloo", advantage, **fields), a * E1 * kept[0], b * E2 * kept[1])
    low, high = 1 - fields.get("clip_low", 0.2), 1 + fields.get("clip_high", 0.2)
    first = min(E1, high) if a > 0 else E1
    second = max(E2, low) if b < 0 else E2
    assert value("rloo", advantage, **fields) == pytest.approx(-(a * first + b * second) / 2)
    logp, batch = two_rows(advantage)
    metrics = loss_value(build("loss", "rloo", **fields), logp, batch)[1]
    assert metrics["clip_fraction"] == pytest.approx(1 - sum(kept) / 2)


def test_rloos_log_product_is_clamped_not_its_tokens() -> None:
    fields: dict[str, Any] = {"clip_low": 1.0, "clip_high": 9.0, "log_ratio_clamp": 0.4}
    same(pushes("rloo", [2.0, 3.0], **fields), 2 * E1, 0)
    assert value("rloo", [2.0, 3.0], **fields) == pytest.approx(-E1 - 1.5 * math.exp(-0.4))
    fields["log_ratio_clamp"] = 0.2
    same(pushes("rloo", [2.0, 3.0], **fields), 0, 0)
    same(pushes("rloo", [2.0, 3.0], **fields | {"log_ratio_clamp": None}), 2 * E1, 3 * E2)


def test_the_dual_clip_is_of_the_token_form_alone() -> None:
    same(pushes("rloo", [-2.0, 3.0], dual_clip=1.1), -2 * E1, 3 * E2)


def test_rloos_three_forms_have_one_gradient_on_fresh_data() -> None:
    """At ratio 1: A on every token, as REINFORCE with the response as one action."""
    logp, batch = two_rows([2.0, -3.0], delta=torch.zeros_like(DELTA))
    for fields in (
        {},
        {"variant": "reinforce"},
        {"variant": "reinforce", "aggregation": "seq-mean-token-sum"},
        {"variant": "ppo_token", "aggregation": "seq-mean-token-sum"},
    ):
        same(-2 * value_and_grad(build("loss", "rloo", **fields), logp, batch)[1], 2, -3)


def test_rloos_paper_form_ignores_the_ratio_and_sums_the_response() -> None:
    logp, _ = two_rows([2.0, -3.0])
    expected = -(2 * logp[0, :2].sum() - 3 * logp[1].sum()) / 2
    for aggregation in ("seq-mean-token-mean", "seq-mean-token-sum"):
        found = value("rloo", [2.0, -3.0], variant="reinforce", aggregation=aggregation)
        assert found == pytest.approx(float(expected))
    token_mean = value("rloo", [2.0, -3.0], variant="reinforce", aggregation="token-mean")
    assert token_mean == pytest.approx(float(expected) * 2 / 5)


def test_rloos_token_form_is_ppo_with_the_dual_clip() -> None:
    fields = {"clip_low": 0.15, "clip_high": 0.3, "dual_clip": 1.5, "aggregation": "token-mean"}
    for advantage in ([2.0, -3.0], [-2.0, 3.0]):
        found = pushes("rloo", advantage, variant="ppo_token", **fields)
        assert torch.equal(found, pushes("ppo", advantage, **fields))
    assert found[0, 0] == 0, "e^0.5 is beyond the dual clip"


def test_an_empty_response_adds_minus_its_advantage_where_it_counts() -> None:
    mask = torch.tensor([[True, True, False], [False] * 3])
    logp, batch = two_rows([2.0, 3.0], delta=DELTA * 0, mask=mask)
    found = {
        counted: float(loss_value(build("loss", "rloo", count_empty_rows=counted), logp, batch)[0])
        for counted in (False, True)
    }
    assert found == {False: -2.0, True: -2.5}
