"""GSPO and LUSPO by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlkit.objective import loss_value
from rlkit.registry import build
from tests.algorithms.two_rows import pushes, same, two_rows, value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gspo", {"aggregation": "seq-mean-token-mean", "clip_low": 3e-4, "clip_high": 4e-4}),
        ("luspo", {"aggregation": "seq-mean-token-sum", "clip_low": 2e-3, "clip_high": 2.5e-3}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()


SUM, MEAN = (0.3, -0.6), (0.15, -0.2)


S1, S2 = (math.exp(x) for x in MEAN)


WIDE = {"clip_low": 0.5, "clip_high": 0.5}


@pytest.mark.parametrize("name", ["gspo", "luspo"])
@pytest.mark.parametrize(
    ("advantage", "fields", "kept"),
    [
        ([2.0, -3.0], WIDE, (1, 1)),
        ([2.0, -3.0], WIDE | {"clip_high": 0.1}, (0, 1)),
        ([2.0, -3.0], WIDE | {"clip_low": 0.1}, (1, 0)),
        ([-2.0, 3.0], {}, (1, 1)),
        ([2.0, -3.0], {}, (0, 0)),
        ([2.0, 3.0], WIDE | {"log_seq_ratio_max": 0.1}, (0, 1)),
        ([2.0, 3.0], WIDE | {"log_ratio_clamp": 0.1}, (0, 0)),
        ([2.0, 3.0], WIDE | {"log_ratio_clamp": 0.17, "log_seq_ratio_max": None}, (1, 0)),
    ],
)
def test_gspo_has_one_ratio_a_response(
    name: str, advantage: list[float], fields: dict[str, Any], kept: tuple[int, int]
) -> None:
    """s = e^0.15 and e^-0.2; the clip and both clamps stop all tokens of a response at once. LUSPO
    multiplies by the length, which leaves no 1 / T."""
    sizes = (2, 3) if name == "gspo" else (1, 1)
    a, b = (x * k / n for x, k, n in zip(advantage, kept, sizes, strict=True))
    same(pushes(name, advantage, **fields), a * S1, b * S2)


def test_gspos_value_is_the_clipped_surrogate_of_the_response() -> None:
    assert value("gspo", [2.0, -3.0], **WIDE) == pytest.approx(-(2 * S1 - 3 * S2) / 2)
    assert value("luspo", [2.0, -3.0], **WIDE) == pytest.approx(-(4 * S1 - 9 * S2) / 2)
    narrow = {"clip_low": 0.1, "clip_high": 0.1}
    assert value("gspo", [2.0, -3.0], **narrow) == pytest.approx(-(2 * 1.1 - 3 * 0.9) / 2)
    capped = WIDE | {"log_seq_ratio_max": 0.1}
    assert value("gspo", [2.0, 0.0], **capped) == pytest.approx(-math.exp(0.1))
    logp, batch = two_rows([2.0, -3.0])
    metrics = loss_value(build("loss", "gspo"), logp, batch)[1]
    assert metrics["response_ratio"] == pytest.approx((2 * S1 + 3 * S2) / 5)
    assert metrics["clip_fraction"] == 1


def test_gspo_gives_each_token_its_own_advantage() -> None:
    """The token form: s A_t / T. A clipped sign stops its own tokens only."""
    advantage = [[2.0, -1.0, 0.0], [1.0, 0.5, -3.0]]
    found = pushes("gspo", advantage, **WIDE)
    assert found[0, :2].tolist() == pytest.approx([S1, -S1 / 2])
    assert found[1].tolist() == pytest.approx([S2 / 3, S2 / 6, -S2])
    found = pushes("gspo", advantage, clip_low=0.1, clip_high=0.1)
    assert found[0, :2].tolist() == pytest.approx([0, -S1 / 2])
    assert found[1].tolist() == pytest.approx([S2 / 3, S2 / 6, 0])
