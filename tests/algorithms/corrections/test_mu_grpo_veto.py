"""mu-GRPO's veto by hand."""

from __future__ import annotations

import pytest
import torch

from rlkit.registry import build
from tests.algorithms.corrections.hand import apply, batch_of, tensor, weight_of

TINY = 1e-5
RATIO = tensor([1.0, TINY, 1.0], [TINY, 1.0, 1.0])
"""pi / behavior, with prox = behavior; the third token of the first response is masked."""
FULL = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("sign", "threshold", "expected"),
    [
        (-1.0, 1e-4, [[1, 1, 0], [1, 0, 0]]),
        (1.0, 1e-4, [[1, 1, 1], [1, 1, 1]]),
        (-1.0, 1e-6, [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_what_follows_an_abandoned_token_of_a_negative_response_has_no_weight(
    sign: float, threshold: float, expected: list[list[float]]
) -> None:
    """The token itself keeps its weight."""
    logp, batch = batch_of(
        torch.ones(2, 3).double(), RATIO, mask=FULL, advantage=sign * torch.ones(2, 3).double()
    )
    found = weight_of("mu_grpo_veto", logp, batch, threshold=threshold)
    assert found.tolist() == expected


def test_demonstrations_and_masked_tokens_veto_nothing() -> None:
    mask = torch.tensor([[False, True, True], [True, True, True]])
    ratio = tensor([TINY, 1.0, 1.0], [TINY, 1.0, 1.0])
    logp, batch = batch_of(
        torch.ones(2, 3).double(),
        ratio,
        mask=mask,
        advantage=-torch.ones(2, 3).double(),
        expert=torch.tensor([False, True]),
    )
    out = apply(build("correction", "mu_grpo_veto"), logp, batch)
    assert out.weight.tolist() == [[1, 1, 1], [1, 1, 1]]
