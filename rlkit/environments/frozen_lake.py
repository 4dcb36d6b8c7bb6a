"""The frozen lake as an environment."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rlkit.environments.hosted import Hosted, HostedConfig
from rlkit.registry import register


class FrozenLakeConfig(HostedConfig):
    """Settings of the lake."""

    size: Annotated[int, Field(ge=2, le=20)] = 4
    """Cells of a side."""
    holes: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """The share of cells that are holes; with more, large lakes hardly ever have a way."""
    slippery: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The probability that a step goes in a random direction."""


@register("environment", "frozen_lake")
class FrozenLake(Hosted[FrozenLakeConfig]):
    """A game of text: the tool `move(direction)` goes one step over the ice, around the holes.

    The reward is 1 at the goal and 0 in a hole or if the policy stops before. The lake is drawn
    from the column `problem` (`task=environment` has it); without one, from the run's seed, the
    prompt and the step. Responses to a prompt have the same lake.
    """

    factory = "rlkit.environments.lake:Lake"
    functions = (
        {
            "type": "function",
            "function": {
                "name": "move",
                "description": "Move one step.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "direction": {
                            "type": "string",
                            "enum": ["up", "down", "left", "right"],
                            "description": "Where to go.",
                        }
                    },
                    "required": ["direction"],
                },
                "return": {"type": "string", "description": "The lake after the step."},
            },
        },
    )
    columns = frozenset({"problem"})
    own_reward = True
    own_state = True

    def settings(self) -> dict[str, Any]:
        """The lake's size, holes and ice."""
        c = self.config
        return {"size": c.size, "holes": c.holes, "slippery": c.slippery}
