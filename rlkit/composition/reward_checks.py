"""Checks that the limits of a run's rewards can be kept."""

from __future__ import annotations

from rlkit.composition.composition import Composition
from rlkit.errors import UserError
from rlkit.rewards.weights import limits_of


def check_rewards(c: Composition) -> None:
    """Check that costs with a limit leave something to maximize, and are measured.

    Raises UserError with what to change.
    """
    limits = limits_of(c.rewards)
    if not limits:
        return
    name = next(iter(limits))
    if len(limits) == len(c.rewards):
        raise UserError(
            f"reward.{name}.limit makes it a cost, and this run has no reward without a limit, so "
            "that nothing would be maximized; add one: reward=[<name>,...]"
        )
    judging = {c.judges.default, *c.judges.by_task.values()} & limits.keys()
    if judging and c.eval_rewards is c.rewards:
        raise UserError(
            f"eval.reward={judging.pop()} is a cost with a limit, which marks no response as "
            "right; choose another reward"
        )
    if c.buffer.fresh_share(c.config.train.prompts_per_step) == 0:
        raise UserError(
            f"reward.{name}.limit is kept by the mean over new responses, and "
            f"buffer={c.raw['buffer']['name']} generates none; give it a weight instead of a limit"
        )
