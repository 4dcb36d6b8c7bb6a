"""A calculator as a tool, for sums as the embedded model writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlkit.environments.answers import Answer, Answers, answered, refused
from rlkit.environments.local import Local
from rlkit.interfaces import Observation, PartConfig, Start
from rlkit.registry import register

SUM = re.compile(r"\d{1,9}(?:\+\d{1,9})*")


def total(expression: str) -> int:
    """The value of a sum "12+3+4". Raises ValueError for anything else."""
    if not SUM.fullmatch(expression):
        raise ValueError("not a sum")
    return sum(map(int, expression.split("+")))


@register("environment", "calculator")
class Calculator(Local[None, PartConfig]):
    """The tool `calculate(expression)` adds whole numbers: "12+34" gives "46".

    It needs no process: a sum is read by hand, never evaluated. With the format `compact` a call is
    `?12+34`, which a model of a few characters can write. A turn without a call ends the episode.
    With no other model and task the run has sums that its embedded model cannot add by itself.
    """

    embedded = True

    def schemas(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The schema of `calculate`."""
        about = {"type": "string", "description": "Whole numbers with + between them."}
        function = {
            "name": "calculate",
            "description": "Add whole numbers.",
            "parameters": {
                "type": "object",
                "properties": {"expression": about},
                "required": ["expression"],
            },
        }
        return [{"type": "function", "function": function}]

    def started(self, start: Start) -> tuple[None, str | None]:
        """Nothing is known, and nothing added."""
        return None, None

    def answered(self, state: None, text: str) -> Observation:
        """The values of the sums of a turn."""
        said = self.context.parse(text, self.schemas({}))
        return answered(said, self.context.calls_per_turn, called)


def called(calls: Sequence[Mapping[str, Any]]) -> Answers:
    """The answer to each call."""
    return Answers(texts=[value_of(call) for call in calls])


def value_of(call: Mapping[str, Any]) -> Answer:
    """The sum, or what is wrong with the call."""
    if call["name"] != "calculate":
        return refused(f"Tool {call['name']} not found.")
    if call["arguments"].keys() != {"expression"}:
        return refused("calculate takes one argument, expression")
    try:
        return {
            "text": str(total(str(call["arguments"]["expression"]))),
            "failed": False,
            "late": False,
        }
    except ValueError as error:
        return refused(str(error))
