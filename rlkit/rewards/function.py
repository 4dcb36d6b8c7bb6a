"""A plain function with TRL's signature as a reward."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field

from rlkit.errors import UserError
from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import wraps_functions
from rlkit.rewards.verl import on_all, scores_one

RewardFunction = Callable[..., Any]
T = TypeVar("T")


class FunctionConfig(RewardConfig):
    """Settings of a function as a reward."""

    time_limit: Annotated[float, Field(gt=0)] | None = 600.0
    """Seconds that one call, for all responses of a step, may take before the run stops; null = no
    limit, and the function is called in the main thread."""


class FunctionReward(Reward[FunctionConfig]):
    """Calls the function with the keyword arguments it accepts, and awaits it if it is async."""

    function: ClassVar[RewardFunction]

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """What the function returns. Raises UserError if it needs a column that does not exist."""
        function = type(self).function
        offered = {"prompts": prompts, "completions": completions, **columns}
        arguments = accepted(function, offered)

        def call() -> list[float | None]:
            result = function(**arguments)
            values: list[float | None] = (
                run_awaitable(result) if inspect.isawaitable(result) else result
            )
            return values

        limit = self.config.time_limit
        return call() if limit is None else within(limit, type(self).__name__, call)


@wraps_functions("reward")
@cache
def reward_class(fn: RewardFunction) -> type[Reward]:
    """The reward class of a function `f(prompts, completions, **columns) -> list[float | None]`.

    A function with verl's signature is called once per completion. The class has the function's
    name and is the same at each call. Async functions are accepted. The function may say
    `f.marks_correctness = False` (or True), as a class would.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    body = {
        "function": staticmethod(on_all(fn) if scores_one(fn) else fn),
        "marks_correctness": getattr(fn, "marks_correctness", None),
        "__doc__": inspect.getdoc(fn),
        "__module__": fn.__module__,
        "__qualname__": getattr(fn, "__qualname__", name),
    }
    return type(name, (FunctionReward,), body)


def accepted(function: RewardFunction, offered: dict[str, Any]) -> dict[str, Any]:
    """The offered arguments that a function accepts: all of them with **kwargs.

    Raises UserError if it requires one that is not offered.
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


def within(seconds: float, name: str, call: Callable[[], T]) -> T:
    """What `call` returns or raises. Raises UserError if it takes longer.

    It runs in a thread that cannot be stopped, but does not keep the process alive either.
    """
    answer: queue.Queue[Future[T]] = queue.Queue()

    def work() -> None:
        future: Future[T] = Future()
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        answer.put(future)

    threading.Thread(target=work, name=f"reward {name}", daemon=True).start()
    try:
        return answer.get(timeout=seconds).result()
    except queue.Empty:
        raise UserError(
            f"reward '{name}' has not returned within {seconds:g} s; fix it, or raise "
            f"reward.{name}.time_limit"
        ) from None


def run_awaitable(awaitable: Awaitable[Any]) -> Any:
    """The result of an awaitable.

    It runs in a thread of its own: a notebook's thread already has an event loop.
    """

    async def wait() -> Any:
        return await awaitable

    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(lambda: asyncio.run(wait())).result()
