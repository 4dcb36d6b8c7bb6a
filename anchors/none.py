"""No anchor: no reference policy in memory, no penalty.

As DAPO (arXiv:2503.14476), which leaves the KL term out. Status: exact.
"""

from __future__ import annotations

from collections.abc import Mapping

from rlkit.interfaces import AnchorConfig, AnchorPolicy, FreezablePolicy
from rlkit.registry import register


@register("anchor", "none")
class NoAnchor(AnchorPolicy[AnchorConfig]):
    """Holds the policy to nothing; `beta` has no effect."""

    sources = ("2503.14476",)

    def weights(self, step: int) -> Mapping[str, float]:
        """No references."""
        return {}

    def reference(self, name: str) -> None:
        """There is none by any name."""
        raise KeyError(name)

    def rebase(self, policy: FreezablePolicy) -> None:
        """Nothing to move."""
