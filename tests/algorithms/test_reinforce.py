"""REINFORCE and GPG by hand."""

from __future__ import annotations

import pytest

from rlkit.registry import build
from tests.algorithms.tokens import LOG_RATIO, LOGP, pushes, tokens, total


@pytest.mark.parametrize("name", ["reinforce", "gpg"])
def test_reinforce_weighs_the_likelihood_by_the_advantage_alone(name: str) -> None:
    """The ratio plays no part: the weight is A wherever the policy has moved."""
    logp, batch = tokens(LOG_RATIO, 2.0)
    assert pushes(name, logp, batch).tolist() == [2.0] * 5
    assert total(name, logp, batch) == -2.0 * LOGP * 5
    assert build("loss", name).needs == frozenset()
    assert build("loss", name).config.aggregation == "token-mean"
