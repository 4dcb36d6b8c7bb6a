"""Checks that the limits of a run's rewards can be kept."""

from __future__ import annotations

from rlkit.composition.composition import Composition
from rlkit.errors import UserError
from rlkit.rewards.weights import SECTION, fixed_weights, limits_of


def check_rewards(c: Composition) -> None:
    """Check that all that is trained on has a reward, and that limits can be kept.

    Costs with a limit must leave something to maximize, and be measured. Raises UserError with what
    to change.
    """
    check_training(c)
    check_greedy(c)
    limits = limits_of(c.rewards)
    if not limits:
        return
    name = next(iter(limits))
    if len(limits) == len(c.rewards):
        raise UserError(
            f"reward.{name}.limit makes it a cost, and this run has no reward without a limit, so "
            "that nothing would be maximized; add one: reward=[<name>,...]"
        )
    judges = {c.judges.default, *c.judges.by_task.values()}
    judging = judges & limits_of(c.eval_rewards).keys()
    if judging:
        raise UserError(
            f"eval.reward={judging.pop()} is a cost with a limit, which marks no response as "
            "right; choose another reward"
        )
    if c.buffer.fresh_share(c.config.train.prompts_per_step) == 0:
        raise UserError(
            f"reward.{name}.limit is kept by the mean over new responses, and "
            f"buffer={c.raw['buffer']['name']} generates none; give it a weight instead of a limit"
        )


def check_training(c: Composition) -> None:
    """Check that no weight of a reward that only evaluates moves, and that each task has a reward.

    Raises UserError with what to change.
    """
    for place in c.scalars:
        section, _, key = place.rpartition(".")
        if key == "weight" and section.startswith(SECTION) and section not in c.sections:
            raise UserError(
                f"{place} has no effect beside {section}.evaluation_only: it is in no total; leave "
                "one of them out"
            )
    for task, weight in c.task.mix.items() if c.rewards else ():
        if weight > 0 and not any(reward.applies_to_task(task) for reward in c.rewards.values()):
            raise UserError(
                f"task.parts.{task}.reward has only rewards with evaluation_only, so that nothing "
                "of this task would be trained on; add one, or set its weight to 0"
            )


def check_greedy(c: Composition) -> None:
    """Check that no greedy response's total, which is not kept by reward, must be stated anew.

    Raises UserError with what to change.
    """
    groups = c.config.train.prompts_per_step
    moving = [key for key in (*c.scalars, *c.schedule.fields()) if key.startswith(SECTION)]
    if moving and c.parts.advantage.needs_greedy and c.buffer.fresh_share(groups) < groups:
        raise UserError(fixed_weights(moving[0]))
