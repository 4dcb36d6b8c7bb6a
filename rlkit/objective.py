"""`loss_value`, re-exported from `rlkit.training.loss_value`."""

from rlkit.training.loss_value import loss_value
from rlkit.training.objective import Objective

__all__ = ["Objective", "loss_value"]
