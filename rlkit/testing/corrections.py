"""What a correction must do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import Corrected, LossBatch, LossOutput, PolicyTerms, Term
from rlkit.interfaces import Correction, PolicyLoss
from rlkit.testing.base import close, require
from rlkit.testing.losses import ENTROPY, FAR, GARBAGE, examples, spoiled
from rlkit.training.objective import Objective


class Plain(PolicyLoss):
    """-(A + 1/2) log pi, the loss a correction is tried on: tokens with A = 0 count too."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms."""
        value = -torch.where(batch.mask, (batch.advantage + 0.5) * policy.logp, 0.0)
        return LossOutput(terms=[Term(name="policy", value=value, mask=batch.mask)])


def corrected(correction: Correction[Any], logp: Tensor, batch: LossBatch) -> Corrected:
    """The correction of these log-probs."""
    terms = PolicyTerms(logp=logp.detach(), entropy=torch.full_like(logp, ENTROPY))
    return correction(terms, batch)


def same(a: Corrected, b: Corrected, mask: Tensor) -> bool:
    """Whether two answers keep the same tokens with the same weights."""
    return torch.equal(a.batch.mask, b.batch.mask) and close((a.weight[mask],), (b.weight[mask],))


def equal_group(batch: LossBatch) -> LossBatch:
    """The batch with one group whose advantages are all 0, and one such response in the other."""
    none = (batch.group == 0) | (torch.arange(8) == 6)
    return replace(batch, advantage=torch.where(none[:, None], 0.0, batch.advantage))


def the_weight_is_detached_and_blind_to_masked_positions(correction: Correction[Any]) -> None:
    """A finite weight [B, T] without gradient that garbage under the mask does not change."""
    logp, batch = examples(correction.needs)
    terms = PolicyTerms(logp=logp.requires_grad_(), entropy=torch.full_like(logp, ENTROPY))
    found = correction(terms, batch)
    require(found.weight.shape == batch.mask.shape, "the weight is not [B, T]")
    require(not found.weight.requires_grad, "the weight carries a gradient; detach it")
    require(not (found.batch.mask & ~batch.mask).any(), "the correction adds to the mask")
    garbage = torch.where(batch.mask, logp, GARBAGE)
    again = corrected(correction, garbage, spoiled(batch))
    require(
        same(again, found, batch.mask),
        "values at masked positions change the correction; mask before exp",
    )


def extreme_weights_stay_finite(correction: Correction[Any]) -> None:
    """prox / behavior and pi / behavior of e^+-50, in float32 and summed over the response."""
    _, batch = examples(correction.needs)
    batch = replace(batch, behavior_logp=batch.behavior_logp.float())
    signs = torch.where(torch.arange(48).view(8, 6) % 2 == 0, 1.0, -1.0)
    for sign in (signs, torch.ones_like(signs), -torch.ones_like(signs)):
        far = batch.behavior_logp + FAR * sign
        found = corrected(correction, far, replace(batch, prox_logp=far))
        require(found.weight.isfinite().all(), "a weight is not finite")
        require((found.weight >= 0).all(), "a weight is negative")


def empty_responses_are_harmless(correction: Correction[Any]) -> None:
    """Responses, or a whole batch, without valid tokens give finite weights and terms."""
    logp, batch = examples(correction.needs)
    one, none = batch.mask.clone(), torch.zeros_like(batch.mask)
    one[2] = False
    for mask in (one, none):
        case = replace(batch, mask=mask)
        require(corrected(correction, logp, case).weight.isfinite().all(), "a weight is not finite")
        value, gradient, _ = through_the_loss(correction, logp, case, [torch.arange(8)])
        require(value.isfinite() and gradient.isfinite().all(), "the loss is not finite")
        require((gradient[~mask] == 0).all(), "a response without valid tokens has a gradient")


def the_order_of_rows_does_not_matter(correction: Correction[Any]) -> None:
    """Permuted rows permute the weights and the mask."""
    order = torch.tensor([5, 2, 7, 0, 3, 6, 1, 4])
    logp, batch = examples(correction.needs)
    for case in (batch, equal_group(batch)):
        a = corrected(correction, logp, case)
        b = corrected(correction, logp[order], case.rows(order))
        expected = Corrected(batch=a.batch.rows(order), weight=a.weight[order])
        require(
            same(expected, b, batch.mask[order]), "the order of the rows changes the correction"
        )


def through_the_loss(
    correction: Correction[Any], logp: Tensor, batch: LossBatch, splits: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The corrected loss and its gradients in log-probs and entropies, by micro-batches."""
    leaf, entropy = logp.detach().clone().requires_grad_(), torch.full_like(logp, ENTROPY)
    entropy.requires_grad_()

    def forward(rows: Tensor) -> PolicyTerms:
        return PolicyTerms(logp=leaf[rows], entropy=entropy[rows])

    objective = Objective(Plain(), corrections=[("tried", correction)])
    total = objective.backward(forward, batch, splits).value
    none = torch.zeros_like(logp)
    return (
        torch.tensor(total, dtype=logp.dtype),
        none if leaf.grad is None else leaf.grad,
        none if entropy.grad is None else entropy.grad,
    )


def micro_batches_do_not_matter(correction: Correction[Any]) -> None:
    """Any split of the minibatch accumulates the gradient of the whole."""
    logp, batch = examples(correction.needs)
    for case in (batch, equal_group(batch)):
        expected = through_the_loss(correction, logp, case, [torch.arange(8)])
        for splits in (
            torch.split(torch.arange(8), 3),
            torch.split(torch.tensor([7, 0, 5, 3, 1, 6, 2, 4]), 1),
        ):
            require(
                close(expected, through_the_loss(correction, logp, case, list(splits))),
                "the split into micro-batches changes the corrected loss; "
                'set scope = "group" or "minibatch" if rows are seen together',
            )


def needs_names_everything_that_is_read(correction: Correction[Any]) -> None:
    """Log-probs that `needs` does not name may be anything."""
    logp, batch = examples(correction.needs)
    found = corrected(correction, logp, batch)
    for need in ("behavior", "prox"):
        if need not in correction.needs:
            field = f"{need}_logp"
            other: dict[str, Any] = {field: getattr(batch, field) - 0.5}
            require(
                same(found, corrected(correction, logp, replace(batch, **other)), batch.mask),
                f"the correction reads {field}, but its `needs` does not name '{need}'",
            )


def a_mask_that_reads_prox_says_so(correction: Correction[Any]) -> None:
    """Unless rows are seen together, a first update that finds prox_logp must start again."""
    logp, batch = examples(correction.needs)
    near, *far = (
        corrected(correction, logp, replace(batch, prox_logp=batch.behavior_logp + shift))
        for shift in (0.0, FAR, -FAR)
    )
    require(
        correction.mask_reads_prox
        or correction.scope != "token"
        or all(torch.equal(near.batch.mask, other.batch.mask) for other in far),
        "the mask depends on prox_logp; set mask_reads_prox = True, so that it is computed before "
        "the updates",
    )


def responses_without_valid_tokens_are_not_there(correction: Correction[Any]) -> None:
    """The others have the loss and the gradient they have without them."""
    logp, batch = examples(correction.needs)
    stay, gone = torch.tensor([0, 1, 3, 5, 6]), torch.tensor([2, 4, 7])
    masked = replace(batch, mask=batch.mask.index_fill(0, gone, False))
    value, *gradients = through_the_loss(correction, logp, masked, [torch.arange(8)])
    alone = through_the_loss(correction, logp[stay], batch.rows(stay), [torch.arange(5)])
    require(
        close((value, *(gradient[stay] for gradient in gradients)), alone),
        "a response without valid tokens changes the others' loss or gradient",
    )


CORRECTION = (
    the_weight_is_detached_and_blind_to_masked_positions,
    extreme_weights_stay_finite,
    empty_responses_are_harmless,
    the_order_of_rows_does_not_matter,
    micro_batches_do_not_matter,
    needs_names_everything_that_is_read,
    a_mask_that_reads_prox_says_so,
    responses_without_valid_tokens_are_not_there,
)
