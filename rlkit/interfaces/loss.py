"""Losses and the corrections that weigh their terms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import TypeVar

from rlkit.batch import (
    Corrected,
    LossBatch,
    LossOutput,
    PolicyTerms,
    Term,
)
from rlkit.errors import UserError, kind_of
from rlkit.interfaces.part import C, Part, PartConfig, check_per_token
from rlkit.ops import (
    Aggregation,
    masked_ratio,
)
from rlkit.plugins import mistakes_of

Scope = Literal["token", "group", "minibatch"]


class LossConfig(PartConfig):
    """Fields every policy loss has."""

    aggregation: Aggregation = "token-mean"
    """How per-token terms are reduced to one number (verl's names), normalized over the whole
    minibatch."""
    norm_length: Annotated[int, Field(ge=1)] | None = None
    """Constant length of seq-mean-token-sum-norm; null = rollout.max_completion_length."""
    log_ratio_clamp: Annotated[float, Field(gt=0)] | None = 20.0
    """Log-ratios are clamped to [-c, c] before exp, with zero gradient outside; null = no clamp."""
    count_empty_rows: bool = False
    """Whether responses without a valid token count in the denominators of sequence means, and as
    members of their groups; else nothing of them is seen."""


LC = TypeVar("LC", bound=LossConfig, default=LossConfig)


class PolicyLoss(Part[LC]):
    """Maps the policy's log-probs and a batch to the terms a step minimizes.

    `needs` names what is read besides the log-probs: "behavior", "prox", "entropy",
    "anchor:<name>", "prompt_hidden". Only the forwards named there are computed. `scope` says which
    rows must be seen together: "token" (each row alone), "group" or "minibatch" (batch-wide
    statistics of the policy's log-probs). Both are class attributes; a part whose settings decide
    them sets its own in `__init__`.
    """

    Config: ClassVar[type[PartConfig]] = LossConfig
    scope: Scope = "token"
    needs: frozenset[str] = frozenset()
    accepts_expert: ClassVar[bool] = False
    sees_penalty: ClassVar[bool] = True
    """Whether it reads advantages, which a penalty taken from the rewards is part of
    (anchor.placement=reward); `LossBatch.reward` is without it."""
    off_policy: ClassVar[bool] = False
    """Whether it is meant for responses of any policy though it does not read who sampled them."""
    advantages: ClassVar[tuple[str, ...]] = ()
    """Advantage parts the method is defined with, if it has its own baseline; a run with another
    one starts with a warning. Empty = any."""

    @abstractmethod
    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """The loss's terms and unreduced metrics for these rows."""

    def modules(self, width: int) -> nn.Module | None:
        """What is trained beside the policy, if `needs` has "prompt_hidden"; called once a stage.

        From the mean hidden states of prompts [n, width], float32, it makes [n, 1]: a response
        reads its prompt's in `PolicyTerms.head`. The run draws its weights by its seed, gives it an
        optimizer with the policy's settings, and keeps both in checkpoints.
        """
        return None

    def counted(self, mask: Tensor) -> Tensor:
        """Which rows of a mask [B, T] count as responses, [B] bool: see `count_empty_rows`."""
        return mask.any(-1) | self.config.count_empty_rows

    def checked(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """What the loss returns. Raises UserError for no LossOutput and a term of a wrong shape."""
        with mistakes_of(f"loss {type(self).__name__}"):
            out: Any = self(policy, batch)
        shapes = (batch.mask.shape, batch.reward.shape)
        if not isinstance(out, LossOutput):
            raise UserError(
                f"loss {type(self).__name__} returned {kind_of(out)}: return "
                "LossOutput(terms=[Term(name=..., value=..., mask=batch.mask)])"
            )
        for term in out.terms:
            if term.value.shape not in shapes or term.mask.shape != shapes[0]:
                raise UserError(
                    f"loss {type(self).__name__}: the term '{term.name}' has a value of shape "
                    f"{list(term.value.shape)} and a mask of {list(term.mask.shape)}; give one "
                    f"value per token {list(shapes[0])} or per response {list(shapes[1])}, and a "
                    "mask per token: rlkit aggregates them over the minibatch"
                )
        return out

    def ratio(self, logp: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        """exp(logp - other) [B, T], clamped by `log_ratio_clamp`, 1 at masked positions."""
        return masked_ratio(logp, other, mask, self.config.log_ratio_clamp)


class Correction(Part[C]):
    """A detached weight or mask on the policy terms (truncated importance sampling, filters).

    Corrections are applied in list order.
    """

    needs: frozenset[str] = frozenset()
    scope: Scope = "token"
    """Which rows must be seen together, as for a loss. A mask that depends on the policy's
    log-probs needs "minibatch", since it changes the counts of the aggregation."""
    mask_reads_prox: bool = False
    """Whether the mask depends on prox_logp, which is then computed before the updates. Otherwise
    the first update may find it, and starts again if that changes how many tokens count."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch, possibly with a smaller mask, and the weight of each token.

        `policy` is detached. By default neither changes.
        """
        return Corrected(batch=batch, weight=torch.ones_like(policy.logp))

    def checked(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """What the correction returns. Raises UserError for another type or another shape."""
        name = f"correction {type(self).__name__}"
        with mistakes_of(name):
            out: Any = self(policy, batch)
        if not isinstance(out, Corrected):
            raise UserError(
                f"{name} returned {kind_of(out)}: return Corrected(batch=batch, weight=...), one "
                "weight per token"
            )
        check_per_token(name, "a weight", out.weight, batch.mask)
        return out

    def terms(self, policy: PolicyTerms, batch: LossBatch) -> Sequence[Term]:
        """Terms to add to the loss; none by default. `policy` is differentiable here."""
        return ()
