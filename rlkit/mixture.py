"""Where GePPO's shares have always been imported from."""

from rlkit.ops.mixture import flattest, mean_place, optimal_shares, steepest, tilted

__all__ = ["flattest", "mean_place", "optimal_shares", "steepest", "tilted"]
