"""A Python interpreter as a tool."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from rlkit.environments.hosted import Hosted, HostedConfig
from rlkit.environments.landlock import offered
from rlkit.registry import register

CONTAINER = "run in a container without network and keys"
PARAMETERS = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "The code, as in a notebook cell."}},
    "required": ["code"],
}


class PythonConfig(HostedConfig):
    """Settings of the interpreter."""

    time_limit: Annotated[float, Field(gt=0)] = 5.0
    turn_limit: Annotated[float, Field(gt=0)] | None = 20.0
    memory_mb: Annotated[int, Field(ge=16)] | None = 256
    keep_names: bool = True
    """Whether a call finds the names of the calls before it, as cells of a notebook do."""
    preload: tuple[str, ...] = ("math", "fractions", "itertools", "statistics")
    """Modules that are imported once for all episodes. Code may import any installed module, which
    then costs time in each episode: name numpy or sympy here if the problems need them."""


@register("environment", "python")
class Python(Hosted[PythonConfig]):
    """The tool `python(code)` runs code and answers with what it prints or raises.

    Each episode has an interpreter in a process of its own, with limits on time and memory, that
    may not write files, start processes, connect to anything or read outside Python's library; see
    docs/environments.md for what holds that up, and where it does not hold. A turn without a call
    ends the episode. Code that cannot be interrupted is killed, and the next call finds no names.
    """

    factory = "rlkit.environments.interpreter:Interpreter"
    functions = (
        {
            "type": "function",
            "function": {
                "name": "python",
                "description": "Run Python code and return what it prints, and the value of its "
                "last expression.",
                "parameters": PARAMETERS,
                "return": {
                    "type": "string",
                    "description": "What it prints, or the error that it raises.",
                },
            },
        },
    )
    columns = frozenset()
    trusted = False
    restarts = True

    def settings(self) -> dict[str, Any]:
        """Whether names are kept."""
        return {"keep_names": self.config.keep_names}

    def preload(self) -> Sequence[str]:
        """The modules of `preload`."""
        return self.config.preload

    def notes(self) -> Sequence[str]:
        """What does not isolate the model's code on this machine."""
        lines: list[str] = []
        if sys.platform != "linux" or platform.machine() != "x86_64":
            lines.append(
                "environment=python: this system has no filter of system calls, and Python's audit "
                "hook alone, which code can undo, keeps the model's code from writing, starting "
                f"programs and connecting; {CONTAINER}"
            )
        if not offered():
            lines.append(
                "environment=python: this kernel has no Landlock, and Python's audit hook alone, "
                "which code can undo, keeps the model's code from reading your files and the "
                f"environment of the trainer, keys included; {CONTAINER}"
            )
        return lines
