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


def penalty_in_words(c: Composition) -> list[str]:
    """What to know of a penalty that is taken from the rewards, a line each."""
    if not is_in_rewards(c):
        return []
    taken = "anchor.placement=reward takes the penalty from the rewards"
    lines = []
    for kind, part in (("loss", c.parts.loss), ("advantage", c.parts.advantage)):
        if not part.sees_penalty:
            lines.append(
                f"Warning: {taken}, and {kind}={c.raw[kind]['name']} reads them without it, so "
                "that nothing penalizes the policy; set anchor.placement=loss."
            )
    if not lines and c.parts.advantage.divides_by_spread:
        lines.append(
            f"Warning: {taken}, and advantage={c.raw['advantage']['name']} divides by each "
            "group's spread: where a group's own rewards are equal, the penalty alone makes "
            "advantages of about 1, whatever anchor.beta is; set anchor.placement=loss, or divide "
            "by another spread or none."
        )
    return lines
