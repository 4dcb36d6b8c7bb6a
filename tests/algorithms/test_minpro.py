"""MinPRO by hand: the smallest ratio of the prefix."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.one_group import BEHAVIOR, responses

E = math.exp


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
