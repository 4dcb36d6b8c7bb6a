"""Where `loss_value` is imported from; it lives in `rlkit.training.objective`."""

from rlkit.training.objective import Objective, loss_value

__all__ = ["Objective", "loss_value"]
