"""What a policy loss must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.errors import kind_of
from rlkit.interfaces import PolicyLoss
from rlkit.objective import Objective, loss_value
from rlkit.testing.base import close, require

GARBAGE = 5e3
FAR = 50.0
ENTROPY = 0.7


def examples(needs: Sequence[str] | frozenset[str], seed: int = 0) -> tuple[Tensor, LossBatch]:
    """Log-probs [8, 6] and a batch, float64: two groups of four responses, one with a hole."""
    generator = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(8, 6, generator=generator, dtype=torch.float64)

    logp = -noise(1.0).abs() - 0.1
    mask = torch.arange(6) < torch.tensor([6, 4, 5, 1, 6, 3, 2, 6])[:, None]
    mask[0, 2] = False
    reward = torch.tensor([1.0, 0.0, 0.25, 0.5, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    centred = reward - reward.view(2, 4).mean(-1).repeat_interleave(4)
    names = [need.removeprefix("anchor:") for need in needs if need.startswith("anchor:")]
    return logp, LossBatch(
        mask=mask,
        advantage=torch.where(mask, centred[:, None], 0.0),
        behavior_logp=logp + noise(0.3),
        prox_logp=logp + noise(0.1),
        anchor_logp={name: logp + noise(0.3) for name in sorted(names)},
        reward=reward,
        group=torch.arange(8) // 4,
        age=torch.arange(8) % 3,
        replayed=torch.arange(8) % 4 > 1,
        expert=torch.zeros(8, dtype=torch.bool),
        truncated=torch.arange(8) == 5,
    )


def value_and_grad(loss: PolicyLoss[Any], logp: Tensor, batch: LossBatch) -> tuple[Tensor, Tensor]:
    """The loss and its gradient with respect to the log-probs [B, T]."""
    leaf = logp.detach().clone().requires_grad_()
    value, _ = loss_value(loss, leaf, batch, entropy=torch.full_like(logp, ENTROPY))
    if not value.requires_grad:
        return value, torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(value, leaf, materialize_grads=True)
    return value.detach(), gradient


def finite(value: Tensor, gradient: Tensor) -> bool:
    """Whether a loss and its gradient are."""
    return bool(value.isfinite() and gradient.isfinite().all())


def the_loss_pushes_the_policy(loss: PolicyLoss[Any]) -> None:
    """On an ordinary batch there is a gradient, and metrics have a shape that can be averaged."""
    logp, batch = examples(loss.needs)
    out: Any = loss(PolicyTerms(logp=logp, entropy=torch.full_like(logp, ENTROPY)), batch)
    require(isinstance(out, LossOutput), f"it returns {kind_of(out)}, not a LossOutput")
    for name, metric in out.metrics.items():
        require(
            metric.shape in (batch.mask.shape, batch.reward.shape),
            f"the metric '{name}' is not [B, T] or [B]",
        )
    value, gradient = value_and_grad(loss, logp, batch)
    require(finite(value, gradient), "the loss or its gradient is not finite")
    require(
        gradient.abs().sum() > 0, "the loss has no gradient with respect to the policy's log-probs"
    )


def masked_positions_change_nothing(loss: PolicyLoss[Any]) -> None:
    """Log-ratios of 1e4 under the mask leave the loss and the gradient as they were."""
    logp, batch = examples(loss.needs)
    expected = value_and_grad(loss, logp, batch)
    found = value_and_grad(loss, torch.where(batch.mask, logp, GARBAGE), spoiled(batch))
    require(
        close(expected, found),
        "values at masked positions change the loss or its gradient; mask before exp",
    )
    require((found[1][~batch.mask] == 0).all(), "masked positions have a gradient")


def spoiled(batch: LossBatch) -> LossBatch:
    """The batch with garbage at its masked positions."""

    def spoil(x: Tensor) -> Tensor:
        return torch.where(batch.mask, x, -GARBAGE)

    return replace(
        batch,
        advantage=spoil(batch.advantage),
        behavior_logp=spoil(batch.behavior_logp),
        prox_logp=spoil(batch.prox_logp),
        anchor_logp={name: spoil(x) for name, x in batch.anchor_logp.items()},
    )


def extreme_ratios_stay_finite(loss: PolicyLoss[Any]) -> None:
    """Log-ratios of +-50 in float32 give a finite loss and gradient."""
    _, batch = examples(loss.needs)
    sign = torch.where(torch.arange(48).view(8, 6) % 2 == 0, 1.0, -1.0)
    single = {
        f: getattr(batch, f).float() for f in ("advantage", "behavior_logp", "prox_logp", "reward")
    }
    batch = replace(
        batch, **single, anchor_logp={n: x.float() for n, x in batch.anchor_logp.items()}
    )
    value, gradient = value_and_grad(loss, batch.behavior_logp + FAR * sign, batch)
    require(
        finite(value, gradient), "log-ratios of +-50 give a loss or gradient that is not finite"
    )


def empty_and_short_responses_are_harmless(loss: PolicyLoss[Any]) -> None:
    """A response without valid tokens, one-token responses, and a batch without any valid token."""
    logp, batch = examples(loss.needs)
    first, none = torch.zeros_like(batch.mask), torch.zeros_like(batch.mask)
    first[:, 0] = True
    one_empty = batch.mask.clone()
    one_empty[2] = False
    for mask in (first, one_empty, none):
        value, gradient = value_and_grad(loss, logp, replace(batch, mask=mask))
        require(finite(value, gradient), "empty or one-token responses give no finite loss")
        require((gradient[~mask] == 0).all(), "a response without valid tokens has a gradient")


def responses_without_valid_tokens_are_not_there(loss: PolicyLoss[Any]) -> None:
    """The others have the loss and the gradient they have without them, if those do not count."""
    uncounted = loss.config.model_copy(update={"count_empty_rows": False})
    loss = type(loss)(uncounted)
    logp, batch = examples(loss.needs)
    stay, gone = torch.tensor([0, 1, 3, 5, 6]), torch.tensor([2, 4, 7])
    masked = replace(batch, mask=batch.mask.index_fill(0, gone, False))
    value, gradient = value_and_grad(loss, logp, masked)
    require(
        close((value, gradient[stay]), value_and_grad(loss, logp[stay], batch.rows(stay))),
        "a response without valid tokens changes the others' loss or gradient; leave rows out of "
        "group statistics that self.counted(mask) does not name",
    )


def a_group_of_equal_rewards_is_harmless(loss: PolicyLoss[Any]) -> None:
    """All advantages of a group zero: finite."""
    logp, batch = examples(loss.needs)
    equal = replace(batch, advantage=batch.advantage * 0, reward=torch.ones_like(batch.reward))
    value, gradient = value_and_grad(loss, logp, equal)
    require(finite(value, gradient), "equal rewards give a loss or gradient that is not finite")


def the_order_of_rows_does_not_matter(loss: PolicyLoss[Any]) -> None:
    """Permuted rows permute the gradient; a group's ties may be broken by their order."""
    logp, batch = examples(loss.needs)
    order = torch.tensor([5, 2, 4, 0, 3, 6, 1, 7])  # 5 stays before 6, and 4 before 7
    value, gradient = value_and_grad(loss, logp, batch)
    found = value_and_grad(loss, logp[order], batch.rows(order))
    require(
        close((value, gradient[order]), found),
        "the order of the rows changes the loss or its gradient",
    )


def padding_does_not_matter(loss: PolicyLoss[Any]) -> None:
    """Three more masked columns leave the loss and the gradient as they were."""
    logp, batch = examples(loss.needs)

    def wider(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, 3))

    wide = ("mask", "advantage", "behavior_logp", "prox_logp", "response_ids")
    fields: dict[str, Any] = {f: wider(getattr(batch, f)) for f in wide}
    longer = replace(
        batch, **fields, anchor_logp={n: wider(x) for n, x in batch.anchor_logp.items()}
    )
    value, gradient = value_and_grad(loss, logp, batch)
    require(
        close((value, wider(gradient)), value_and_grad(loss, wider(logp), longer)),
        "padding changes the loss",
    )


def micro_batches_do_not_matter(loss: PolicyLoss[Any]) -> None:
    """Any split of the minibatch accumulates the gradient of the whole."""
    logp, batch = examples(loss.needs)
    value, gradient = value_and_grad(loss, logp, batch)
    for splits in (
        torch.split(torch.arange(8), 3),
        torch.split(torch.tensor([7, 0, 5, 3, 1, 6, 2, 4]), 1),
    ):
        leaf = logp.clone().requires_grad_()

        def forward(rows: Tensor, leaf: Tensor = leaf) -> PolicyTerms:
            return PolicyTerms(logp=leaf[rows], entropy=torch.full_like(logp[rows], ENTROPY))

        total = Objective(loss).backward(forward, batch, splits).value
        assert leaf.grad is not None
        found = torch.tensor(total, dtype=value.dtype), leaf.grad
        require(
            close((value, gradient), found),
            "the split into micro-batches changes the loss or its gradient; "
            'set scope = "group" or "minibatch" if rows are seen together',
        )


def needs_names_everything_that_is_read(loss: PolicyLoss[Any]) -> None:
    """Log-probs that `needs` does not name may be anything."""
    logp, batch = examples(loss.needs)
    expected = value_and_grad(loss, logp, batch)
    for need in ("behavior", "prox"):
        if need not in loss.needs:
            field = f"{need}_logp"
            other = replace(batch, **{field: getattr(batch, field) - 0.5})
            require(
                close(expected, value_and_grad(loss, logp, other)),
                f"the loss reads {field}, but its `needs` does not name '{need}'",
            )


LOSS = (
    the_loss_pushes_the_policy,
    masked_positions_change_nothing,
    extreme_ratios_stay_finite,
    empty_and_short_responses_are_harmless,
    a_group_of_equal_rewards_is_harmless,
    the_order_of_rows_does_not_matter,
    padding_does_not_matter,
    micro_batches_do_not_matter,
    needs_names_everything_that_is_read,
    responses_without_valid_tokens_are_not_there,
)
