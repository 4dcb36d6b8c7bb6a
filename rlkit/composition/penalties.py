"""What a KL penalty that is taken from the rewards does with the other parts of a run."""

from __future__ import annotations

from rlkit.composition.composition import Composition
from rlkit.errors import UserError


def is_in_rewards(c: Composition) -> bool:
    """Whether the anchor's penalty is taken from the rewards, now or later in the run."""
    anchor = c.parts.anchor
    later = "anchor.beta" in {*c.scalars, *c.schedule.fields()}
    penalized = bool(anchor.weights(1)) and (anchor.config.beta > 0 or later)
    return anchor.placement == "reward" and penalized


def check_penalty(c: Composition) -> None:
    """Check that no penalty makes rewards negative which must not be."""
    if c.parts.advantage.nonnegative and is_in_rewards(c):
        raise UserError(
            "anchor.placement=reward takes the penalty from the rewards, which advantage="
            f"{c.raw['advantage']['name']} needs to be 0 or more; set anchor.placement=loss, or "
            "choose another advantage"
        )
