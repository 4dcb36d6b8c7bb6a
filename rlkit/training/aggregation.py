"""How the terms of a loss become one number, whatever the micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import Term
from rlkit.errors import UserError
from rlkit.interfaces import PolicyLoss
from rlkit.ops import aggregate_weights

DEFAULT_MAX_COMPLETION_LENGTH = 512
Counts = Mapping[str, tuple[Tensor, Tensor]]
"""Term name -> valid tokens and counted rows of the whole minibatch."""


class Aggregating:
    """What has a loss, and sums its terms as that loss asks."""

    loss: PolicyLoss[Any]
    max_completion_length: int

    def counts(self, terms: Sequence[Term]) -> Counts:
        """Valid tokens and rows of each term. Raises UserError if two share a name."""
        names = [term.name for term in terms]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"two terms of the loss are called '{twice}'; rename one")
        return {t.name: (t.mask.sum(), self._counted(t).sum()) for t in terms}

    def _counted(self, term: Term) -> Tensor:
        """Which rows count as responses of a term, [B] bool: see `count_empty_rows`."""
        valid = term.mask.any(-1)
        if not self.loss.config.count_empty_rows:
            return valid
        return torch.ones_like(valid) if term.rows is None else valid | term.rows

    def reduce(self, terms: Sequence[Term], counts: Counts) -> Tensor:
        """The part of the minibatch's loss that these rows contribute."""
        config = self.loss.config
        total: Tensor | None = None
        for term in terms:
            tokens, rows = (count.to(term.value.dtype) for count in counts[term.name])
            aggregation = term.aggregation or config.aggregation
            weights = aggregate_weights(
                term.mask,
                aggregation,  # type: ignore[arg-type]
                tokens=tokens,
                rows=rows,
                norm_length=config.norm_length or self.max_completion_length,
            )
            if term.value.dim() > 1:
                share = (weights * torch.where(term.mask, term.value, 0.0)).sum()
            else:
                weights = self._row_weights(term, weights, rows)
                share = (weights * torch.where(weights != 0, term.value, 0.0)).sum()
            total = term.weight * share if total is None else total + term.weight * share
        assert total is not None, "a loss must return at least one term"
        return total

    def _row_weights(self, term: Term, weights: Tensor, rows: Tensor) -> Tensor:
        """The weight [B] of a per-response value: the total weight of its tokens.

        Under seq-mean-token-mean an empty response that counts keeps its place in the mean.
        """
        total = weights.sum(-1)
        aggregation = term.aggregation or self.loss.config.aggregation
        if aggregation == "seq-mean-token-mean":
            empty = self._counted(term) & ~term.mask.any(-1)
            total = torch.where(empty, 1 / rows.clamp(min=1), total)
        return total


def weighted(term: Term, weight: Tensor) -> Term:
    """A term times the corrections' weight.

    A sequence term takes the geometric mean of its tokens' weights.
    """
    if not term.corrected:
        return term
    if term.value.dim() == 1:
        log_weight = torch.where(term.mask, weight, 1.0).log()
        weight = (log_weight.sum(-1) / term.mask.sum(-1).clamp(min=1)).exp()
    return replace(term, value=term.value * weight)
