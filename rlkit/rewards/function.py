"""A plain function with TRL's signature as a reward."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
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
    limit, and a function that is not async is called in the main thread."""


class FunctionReward(Reward[FunctionConfig]):
    """Calls the function with the keyword arguments it accepts, and awaits it if it is async."""

    function: ClassVar[RewardFunction]
    is_async: ClassVar[bool] = False
    """Whether calling the function only makes an awaitable, which runs when it is awaited."""

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """What the function returns. Raises UserError if it needs a column that does not exist."""
        arguments = self._arguments(prompts, completions, columns)

        def call() -> list[float | None]:
            result = type(self).function(**arguments)
            values: list[float | None] = (
                run_awaitable(result) if inspect.isawaitable(result) else result
            )
            return values

        limit = self.config.time_limit
        return call() if limit is None else within(limit, call, self._late())

    async def awaited(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> Any:
        """The same in an event loop that is running; others may wait in it at the same time."""
        result = type(self).function(**self._arguments(prompts, completions, columns))
        if not inspect.isawaitable(result):
            return result
        task = asyncio.ensure_future(result)
        await asyncio.wait([task], timeout=self.config.time_limit)
        if not task.done():
            raise self._late()
        return task.result()

    def _arguments(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
    ) -> dict[str, Any]:
        offered = {"prompts": prompts, "completions": completions, **columns}
        return accepted(type(self).function, offered)

    def _late(self) -> UserError:
        name = type(self).__name__
        return UserError(
            f"reward '{name}' has not returned within {self.config.time_limit:g} s; fix it, or "
            f"raise reward.{name}.time_limit"
        )


@wraps_functions("reward")
@cache
def reward_class(fn: RewardFunction) -> type[Reward]:
    """The reward class of a function `f(prompts, completions, **columns) -> list[float | None]`.

    A function with verl's signature is called once per completion. The class has the function's
    name and is the same at each call. Async functions are accepted. The function may say
    `f.marks_correctness = False` (or True) and `f.beside_others = True`, as a class would.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    body = {
        "function": staticmethod(on_all(fn) if scores_one(fn) else fn),
        "is_async": is_async(fn),
        "marks_correctness": getattr(fn, "marks_correctness", None),
        "beside_others": getattr(fn, "beside_others", False),
        "__doc__": inspect.getdoc(fn),
        "__module__": fn.__module__,
        "__qualname__": getattr(fn, "__qualname__", name),
    }
    return type(name, (FunctionReward,), body)


def looks_at(reward: Reward, argument: str) -> bool:
    """Whether a reward is a function that names an argument."""
    if not isinstance(reward, FunctionReward):
        return False
    return argument in inspect.signature(type(reward).function).parameters


def is_async(fn: RewardFunction) -> bool:
    """Whether it is `async def`, or an object whose `__call__` is."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


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


def within(seconds: float | None, call: Callable[[], T], late: UserError | None = None) -> T:
    """What `call` returns or raises. Raises `late` if it takes longer; None = it may take forever.

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

    threading.Thread(target=work, name="reward", daemon=True).start()
    try:
        return answer.get(timeout=seconds).result()
    except queue.Empty:
        assert late is not None
        raise late from None


def run_awaitable(awaitable: Awaitable[Any]) -> Any:
    """The result of an awaitable.

    It runs in a thread of its own: a notebook's thread already has an event loop.
    """

    async def wait() -> Any:
        return await awaitable

    return within(None, lambda: asyncio.run(wait()))
