"""Responses as trees, there and back."""

from __future__ import annotations

import torch

from rlkit.rollout.packing import pack, unpack
from tests.rollout.remotes import generation


def test_packed_responses_come_back_as_they_were() -> None:
    given = [generation([3, 1], 4, kept_logmass=torch.tensor([-0.1, -0.2]), x=0.5)]
    given += [generation([], 4), generation([7], 5)]
    for before, after in zip(given, unpack(pack(given)), strict=True):
        for name in ("response_ids", "logp", "policy_version"):
            a, b = getattr(before, name), getattr(after, name)
            assert torch.equal(a, b) and a.dtype == b.dtype
        assert (
            after.finish_reason == before.finish_reason
            and after.extras.keys() == before.extras.keys()
        )
    assert unpack(pack([])) == []
