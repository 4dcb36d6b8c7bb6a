"""A plain function with TRL's signature as a reward."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, ClassVar

from rlkit.errors import UserError
from rlkit.interfaces import Reward, RewardConfig

RewardFunction = Callable[..., Any]


class FunctionReward(Reward[RewardConfig]):
    """Calls the function with the keyword arguments it takes, and runs it when it is async."""

    Config = RewardConfig
    function: ClassVar[RewardFunction]

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """What the function returns. Raises UserError when it needs a column that is not there."""
        function = type(self).function
        offered = {"prompts": prompts, "completions": completions, **columns}
        result = function(**accepted(function, offered))
        if inspect.isawaitable(result):
            result = run_awaitable(result)
        values: list[float | None] = result
        return values


@cache
def reward_class(fn: RewardFunction) -> type[Reward]:
    """The reward class of a function `f(prompts, completions, **columns) -> list[float | None]`.

    The class has the function's name and is the same at each call. Async functions are accepted.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    body = {
        "function": staticmethod(fn),
        "__doc__": inspect.getdoc(fn),
        "__module__": fn.__module__,
        "__qualname__": getattr(fn, "__qualname__", name),
    }
    return type(name, (FunctionReward,), body)


def accepted(function: RewardFunction, offered: dict[str, Any]) -> dict[str, Any]:
    """The offered arguments that a function takes: all of them under **kwargs.

    Raises UserError when it requires one that is not offered.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = offered
    else:
        taken = {p.name: offered[p.name] for p in parameters if p.name in offered}
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        if p.name not in taken
    ]
    if missing:
        name = getattr(function, "__name__", type(function).__name__)
        raise UserError(
            f"reward '{name}' needs the argument '{missing[0]}', which is neither a column of the "
            f"task nor passed by the run; there are: {', '.join(sorted(offered))}"
        )
    return taken


def run_awaitable(awaitable: Awaitable[Any]) -> Any:
    """The result of an awaitable.

    It runs in a thread of its own: a notebook's thread already has an event loop.
    """

    async def wait() -> Any:
        return await awaitable

    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(lambda: asyncio.run(wait())).result()
