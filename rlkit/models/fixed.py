"""A model of other weights than the policy's, which gives log-probs of the policy's tokens."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from rlkit.models.host_copy import visit
from rlkit.models.policy import FrozenPolicy, Policy
from rlkit.stored.card import weights_hash

DIGITS = 15
"""Hexadecimal digits of a number, which fits into 64 bits with its sign."""


class LoadedModel(FrozenPolicy):
    """A loaded model that never changes.

    It computes on `device`: if it is kept elsewhere, its layers visit that device one at a time.
    """

    def __init__(self, loaded: Policy, device: torch.device) -> None:
        super().__init__(loaded.model, loaded)
        whose = f"{weights_hash(loaded.model.state_dict())} {loaded.temperature} {loaded.autocast}"
        self.number = int(hashlib.sha256(whose.encode()).hexdigest()[:DIGITS], 16)
        """The same for the same weights, temperature and dtype, and for no others."""
        if device != loaded.device:
            visit(loaded.model, device)
            self.device, self.reading = device, replace(self.reading, device=device)
