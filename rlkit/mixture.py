"""Where GePPO's shares are imported from; they live in `rlkit.ops`."""

from rlkit.ops import mean_place, optimal_shares

__all__ = ["mean_place", "optimal_shares"]
