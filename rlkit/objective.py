"""Where `loss_value` has always been imported from."""

from rlkit.training.objective import loss_value

__all__ = ["loss_value"]
