"""What an advantage estimator must do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.errors import kind_of
from rlkit.interfaces import AdvantageEstimator
from rlkit.testing.base import close, require, stored

GARBAGE = 1e4
FAR = 50.0


def examples(needs: Iterable[str] = (), seed: int = 0) -> AdvantageBatch:
    """Two groups of four responses, [8, 6] float64, with an inner masked token.

    The references are those that `needs` names.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(8, 6, generator=generator, dtype=torch.float64)

    mask = torch.arange(6) < torch.tensor([6, 4, 5, 1, 6, 3, 2, 6])[:, None]
    mask[0, 2] = False
    reward = torch.tensor([1.0, 0.0, 0.25, 0.5, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    token_reward = torch.zeros(8, 6, dtype=torch.float64)
    token_reward[torch.arange(8), torch.tensor([5, 3, 4, 0, 5, 2, 1, 5])] = reward
    logp = -noise().abs()
    values = torch.where(mask, noise(), 0.0)
    prox = logp + 0.3 * noise()
    names = sorted(need.removeprefix("anchor:") for need in needs if need.startswith("anchor:"))
    return AdvantageBatch(
        reward=reward,
        rewards={"task": reward.clone()},
        token_reward=token_reward,
        greedy_reward=torch.full((8,), 0.5, dtype=torch.float64),
        mask=mask,
        group=torch.arange(8) // 4,
        age=torch.arange(8) % 3,
        replayed=torch.arange(8) % 4 > 1,
        expert=torch.zeros(8, dtype=torch.bool),
        values=values,
        behavior_logp=logp,
        prox_logp=prox,
        anchor_logp={name: logp + 0.3 * noise() for name in names},
    )


def advantages_have_the_shape_of_the_mask(advantage: AdvantageEstimator[Any]) -> None:
    """Advantages and returns [B, T], finite, zero where masked, and not all zero."""
    b = examples(advantage.needs)
    out: Any = advantage(b)
    require(isinstance(out, AdvantageOutput), f"it returns {kind_of(out)}, not an AdvantageOutput")
    for name, value in (("advantage", out.advantage), ("returns", out.returns)):
        require(value.shape == b.mask.shape, f"{name} is not [B, T]")
        require(value.isfinite().all(), f"{name} is not finite")
        require((value[~b.mask] == 0).all(), f"{name} is not 0 at masked positions")
    require(out.advantage.abs().sum() > 0, "different rewards give no advantage")


def masked_positions_change_nothing(advantage: AdvantageEstimator[Any]) -> None:
    """Garbage under the mask leaves the advantages as they were."""
    b = examples(advantage.needs)
    names = ("token_reward", "values", "behavior_logp", "prox_logp")
    garbage: dict[str, Any] = {
        name: torch.where(b.mask, getattr(b, name), GARBAGE) for name in names
    }
    garbage["anchor_logp"] = {
        name: torch.where(b.mask, logp, GARBAGE) for name, logp in b.anchor_logp.items()
    }
    a, c = advantage(b), advantage(replace(b, **garbage))
    require(
        close((a.advantage, a.returns), (c.advantage, c.returns)),
        "values at masked positions change the advantages",
    )


def equal_rewards_and_empty_responses_are_harmless(advantage: AdvantageEstimator[Any]) -> None:
    """A group of equal rewards, and a response without valid tokens: finite."""
    b = examples(advantage.needs)
    mask = b.mask.clone()
    mask[1] = False
    equal = replace(b, reward=torch.full_like(b.reward, 0.1), rewards={})
    for case in (equal, replace(b, mask=mask), replace(b, mask=torch.zeros_like(mask))):
        out = advantage(case)
        finite = out.advantage.isfinite().all() and out.returns.isfinite().all()
        require(finite, "equal rewards or an empty response give advantages that are not finite")


def extreme_ratios_stay_finite(advantage: AdvantageEstimator[Any]) -> None:
    """prox / behavior of e^+-50 gives finite advantages."""
    b = examples(advantage.needs)
    sign = torch.where(torch.arange(48).view(8, 6) % 2 == 0, 1.0, -1.0)
    out = advantage(replace(b, prox_logp=b.behavior_logp + FAR * sign))
    finite = out.advantage.isfinite().all() and out.returns.isfinite().all()
    require(finite, "log-ratios of +-50 give advantages that are not finite")


def needs_names_everything_that_is_read(advantage: AdvantageEstimator[Any]) -> None:
    """Log-probs that `needs` does not name may be anything."""
    b = examples(advantage.needs)
    out = advantage(b)
    for need in ("behavior", "prox"):
        if need not in advantage.needs:
            field = f"{need}_logp"
            other: dict[str, Any] = {field: getattr(b, field) - torch.arange(6) / 10}
            found = advantage(replace(b, **other))
            require(
                close((out.advantage, out.returns), (found.advantage, found.returns)),
                f"the advantage reads {field}, but its `needs` does not name '{need}'",
            )


def the_order_of_rows_does_not_matter(advantage: AdvantageEstimator[Any]) -> None:
    """Permuted rows, groups torn apart, permute the advantages."""
    b = examples(advantage.needs)
    order = torch.tensor([5, 2, 7, 0, 3, 6, 1, 4])
    out, found = advantage(b), advantage(b.rows(order))
    require(
        close((out.advantage[order], out.returns[order]), (found.advantage, found.returns)),
        "the order of the rows changes the advantages; read the groups from b.group",
    )


def the_value_loss_pulls_to_the_returns(advantage: AdvantageEstimator[Any]) -> None:
    """Zero at the returns, positive elsewhere, both results [B, T]."""
    b = examples(advantage.needs)
    loss, clipped = advantage.value_loss(b.values, b.values, b.values)
    require(loss.shape == clipped.shape == b.values.shape, "value_loss does not give two [B, T]")
    require((loss == 0).all(), "the value loss is not 0 where the values are the returns")
    away = advantage.value_loss(b.values + 1, b.values + 1, b.values)[0]
    require((away > 0).all(), "the value loss is not positive where the values miss the returns")


def its_memory_survives_a_checkpoint(advantage: AdvantageEstimator[Any]) -> None:
    """An estimator with the saved state gives the same next advantages."""
    advantage(examples(advantage.needs))
    again = type(advantage)(advantage.config)
    again.load_state_dict(stored(advantage.state_dict()))
    b = examples(advantage.needs, seed=1)
    a, c = advantage(b), again(b)
    require(
        close((a.advantage, a.returns), (c.advantage, c.returns)),
        "the advantages differ after a checkpoint; state_dict leaves something out",
    )


ADVANTAGE = (
    advantages_have_the_shape_of_the_mask,
    masked_positions_change_nothing,
    equal_rewards_and_empty_responses_are_harmless,
    extreme_ratios_stay_finite,
    needs_names_everything_that_is_read,
    the_order_of_rows_does_not_matter,
    the_value_loss_pulls_to_the_returns,
    its_memory_survives_a_checkpoint,
)
