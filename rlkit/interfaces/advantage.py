"""From rewards to advantages."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from rlkit.batch import (
    AdvantageBatch,
    AdvantageOutput,
)
from rlkit.interfaces.part import C, Part


class AdvantageEstimator(Part[C]):
    """Turns the rewards of a whole step's batch into advantages.

    `needs` names the log-probs that are read, as for a loss: "behavior", "prox", "anchor:<name>".
    """

    needs: frozenset[str] = frozenset()
    needs_critic: ClassVar[bool] = False
    needs_greedy: ClassVar[bool] = False
    min_group: ClassVar[int] = 1

    @abstractmethod
    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages and returns, [B, T].

        In a run the batch has no response without a valid token.
        """

    def value_loss(
        self, values: Tensor, old_values: Tensor, returns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Per-token critic loss [B, T] and a 0/1 clip indicator [B, T].

        By default the squared error, never clipped.
        """
        return 0.5 * (values - returns) ** 2, values.new_zeros(values.shape)
