"""A plain function as a loss: `loss=./mine.py:my_loss`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

from torch import Tensor

from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.errors import UserError
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import wraps_functions

LossFunction = Callable[[PolicyTerms, LossBatch], Tensor | LossOutput]


class FunctionLoss(PolicyLoss[LossConfig]):
    """Calls a function `f(policy, batch)`.

    It returns a value per token [B, T] or per response [B], which becomes the term "policy", or a
    whole `LossOutput`. Its settings are those every loss has. Attributes of the function may say
    what a class would: `f.needs`, `f.scope`, `f.accepts_expert`; without them it gets behavior and
    proximal log-probs, and sees the whole minibatch at once.
    """

    function: ClassVar[LossFunction]

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """What the function returns. Raises UserError for another shape or type."""
        found: Any = type(self).function(policy, batch)
        if isinstance(found, LossOutput):
            return found
        shapes = (batch.mask.shape, batch.reward.shape)
        if not isinstance(found, Tensor) or found.shape not in shapes:
            what = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found)
            raise UserError(
                f"loss '{type(self).__name__}' returned {what}; return one value per token "
                f"{list(shapes[0])}, one per response {list(shapes[1])}, or a LossOutput: rlkit "
                "aggregates them over the minibatch"
            )
        return LossOutput(terms=[Term(name="policy", value=found, mask=batch.mask)])


@wraps_functions("loss")
@cache
def loss_class(function: LossFunction) -> type[PolicyLoss]:
    """The loss class of a function; it has the function's name and is the same at each call.

    Raises UserError for a function that cannot be called with a policy and a batch.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        inspect.signature(function).bind("policy", "batch")
    except TypeError:
        raise UserError(
            f"{name} is not a loss: a function used as one takes (policy, batch)"
        ) from None
    body = {
        "function": staticmethod(function),
        "needs": frozenset(getattr(function, "needs", ("behavior", "prox"))),
        "scope": getattr(function, "scope", "minibatch"),
        "accepts_expert": getattr(function, "accepts_expert", False),
        "__doc__": inspect.getdoc(function),
        "__module__": function.__module__,
        "__qualname__": getattr(function, "__qualname__", name),
    }
    return type(name, (FunctionLoss,), body)
