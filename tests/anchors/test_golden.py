"""KL-Convex's lambda(t) over 140 steps."""

from __future__ import annotations

import pytest

from anchors.kl_convex import KLConvex, KLConvexConfig
from tests.golden.reader import Case, cases


@pytest.mark.parametrize("case", cases("schedule/kl_convex_lambda"))
def test_the_share_of_the_base(case: Case) -> None:
    assert KLConvexConfig().model_dump().items() >= case["config"].items(), (
        "the paper's are defaults"
    )
    anchor = KLConvex(KLConvexConfig(**case["config"]))
    for step, share in zip(case["inputs"]["step"], case["expect"]["value"], strict=True):
        weights = anchor.weights(step)
        assert weights["base"] == pytest.approx(share, abs=1e-12)
        assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)
