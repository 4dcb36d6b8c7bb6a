"""GePPO's shares, re-exported from `rlkit.ops`."""

from rlkit.ops import mean_place, optimal_shares

__all__ = ["mean_place", "optimal_shares"]
