"""From rewards to advantages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from rlkit.batch import AdvantageBatch, AdvantageOutput, Group, Prompt, Sample, Score
from rlkit.errors import UserError, kind_of
from rlkit.interfaces.part import C, Part, check_per_token
from rlkit.plugins import mistakes_of

Scoring = Callable[[Sequence[Sample], Sequence[Prompt]], Mapping[int, Score]]
"""Samples, each with its prompt -> the policy's scores by sample_id, without gradient."""


class AdvantageEstimator(Part[C]):
    """Turns the rewards of a whole step's batch into advantages.

    `needs` names the log-probs that are read, as for a loss: "behavior", "prox", "anchor:<name>".
    """

    needs: frozenset[str] = frozenset()
    needs_critic: ClassVar[bool] = False
    needs_greedy: ClassVar[bool] = False
    min_group: ClassVar[int] = 1
    prox_is_own: ClassVar[bool] = False
    """Whether prox_logp must be the policy's own, which no anchor may replace."""
    nonnegative: ClassVar[bool] = False
    """Whether rewards must be 0 or more, so that no penalty may be taken from them."""
    sees_penalty: ClassVar[bool] = True
    """Whether it reads the rewards from which a penalty is taken (anchor.placement=reward)."""

    @property
    def divides_by_spread(self) -> bool:
        """Whether rewards are divided by the spread of their group, however small it is."""
        return False

    @property
    def critic_sees_age(self) -> bool:
        """Whether the critic is told how stale the weights were that sampled a response."""
        return False

    def begin(self, groups: Sequence[Group], score: Scoring) -> None:
        """Called in a run before the advantages of a step, with the groups its batch numbers.

        `score` gives the current policy's scores of stored samples, by sample_id. What it is called
        with may depend only on what every rank knows.
        """

    @abstractmethod
    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages and returns, [B, T].

        In a run the batch has no response without a valid token.
        """

    def checked(self, b: AdvantageBatch) -> AdvantageOutput:
        """The advantages and returns. Raises UserError for another type or another shape."""
        name = f"advantage {type(self).__name__}"
        with mistakes_of(name):
            out: Any = self(b)
        if not isinstance(out, AdvantageOutput):
            raise UserError(
                f"{name} returned {kind_of(out)}: return "
                "AdvantageOutput(advantage=..., returns=...), one value per token each"
            )
        for key in ("advantage", "returns"):
            check_per_token(name, key, getattr(out, key), b.mask)
        return out

    def value_loss(
        self, values: Tensor, prox_values: Tensor, returns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Per-token critic loss [B, T] and a 0/1 clip indicator [B, T].

        `prox_values` are those of the critic before the step's updates. By default the squared
        error, never clipped.
        """
        return 0.5 * (values - returns) ** 2, values.new_zeros(values.shape)
