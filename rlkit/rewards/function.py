"""A plain function with TRL's signature as a reward."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rlkit.errors import UserError, suggest
from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import wraps_functions
from rlkit.rewards.values import RowFailed, numbers_of
from rlkit.rewards.verl import on_all, scores_one
from rlkit.rewards.waiting import Late, in_thread, run_awaitable, within

RewardFunction = Callable[..., Any]
GRACE = 1.0
"""Seconds beyond its own limits after which an event loop counts as blocked."""


class FunctionConfig(RewardConfig):
    """Settings of a function as a reward."""

    time_limit: Annotated[float, Field(gt=0)] | None = 600.0
    """Seconds that one call may take; null = no limit, and a function that is called once, and is
    not async, is called in the main thread."""
    late: Literal["error", "none"] = "error"
    """What a call that takes longer means: error = the run stops; none = its responses have no
    score from this reward, and count in reward/timeouts. A thread that is late cannot be stopped
    and works on."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """null = one call with all responses of a step, as in TRL. A number = one call per response,
    with lists of one entry, and so many of them at a time: in threads, or in the event loop if the
    function is async."""


class FunctionReward(Reward[FunctionConfig]):
    """Calls the function with the keyword arguments it accepts, and awaits it if it is async."""

    function: ClassVar[RewardFunction]
    is_async: ClassVar[bool] = False
    """Whether calling the function only makes an awaitable, which runs when it is awaited."""
    caches = ("_timeouts",)
    _timeouts = 0

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """What the function returns. Raises UserError if it needs a column that does not exist."""
        seconds, count = self.config.time_limit, len(completions)
        offered = {"prompts": prompts, "completions": completions, **columns}

        def in_loop() -> Any:
            return run_awaitable(self.awaited(**offered))

        if self.config.concurrency is not None and not self.is_async:
            return in_loop()  # type: ignore[no-any-return]
        try:
            if self.is_async:  # its own limits fail if it keeps the event loop from running
                longest = self.longest(count)
                return within(None if longest is None else longest + GRACE, in_loop)
            call = self._call(offered)
            return call() if seconds is None else within(seconds, call)
        except Late:
            return self.left_out(count)

    async def awaited(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> Any:
        """The same in an event loop that is running; others may wait in it at the same time."""
        offered = {"prompts": prompts, "completions": completions, **columns}
        if self.config.concurrency is not None:
            return await self._each(offered, len(completions), self.config.concurrency)
        try:
            return await self._limited(offered)
        except Late:
            return self.left_out(len(completions))

    def longest(self, count: int) -> float | None:
        """Seconds that `count` responses may take, if only the calls themselves take time."""
        limit, at_once = self.config.time_limit, self.config.concurrency
        return limit if limit is None or at_once is None else limit * -(-count // at_once)

    def left_out(self, count: int, where: str = "") -> list[float | None]:
        """None for `count` late responses, which are counted. Raises UserError with late=error."""
        name, c = type(self).__name__, self.config
        if c.late == "error":
            raise UserError(
                f"reward '{name}' has not returned within {c.time_limit:g} s{where}; fix it, raise "
                f"reward.{name}.time_limit, or leave such responses out: reward.{name}.late=none"
            )
        self._timeouts += count
        return [None] * count

    def counts(self) -> dict[str, int]:
        """The "timeouts" since the last call, by response."""
        count, self._timeouts = self._timeouts, 0
        return {"timeouts": count}

    async def _each(
        self, offered: Mapping[str, Sequence[Any]], count: int, at_once: int
    ) -> list[float | None]:
        """One call per response. Raises what the first response to fail raised.

        Calls begin in order and none begins once a failure is known, so that every response before
        the first failure has been tried.
        """
        gate, failed = asyncio.Semaphore(at_once), asyncio.Event()

        async def one(row: int) -> float | None:
            async with gate:
                if failed.is_set():
                    return None
                try:
                    return await self._alone(offered, row)
                except Exception:
                    failed.set()
                    raise

        found = await asyncio.gather(*map(one, range(count)), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return [each for each in found if not isinstance(each, BaseException)]

    async def _alone(self, offered: Mapping[str, Sequence[Any]], row: int) -> float | None:
        """The value of a response that is the only one of its call."""
        name = type(self).__name__
        try:
            values = await self._limited({key: [given[row]] for key, given in offered.items()})
        except Late:
            return self.left_out(1, f" for completion {row}")[0]
        except UserError:
            raise
        except Exception as error:
            raise RowFailed(row) from (error.__cause__ if isinstance(error, RowFailed) else error)
        return numbers_of(name, values, [row])[0]

    async def _limited(self, offered: Mapping[str, Sequence[Any]]) -> Any:
        """What a call returns. Raises Late after the time limit."""
        call = self._call(offered)
        task = asyncio.ensure_future(
            type(self).function(**self._arguments(offered)) if self.is_async else in_thread(call)
        )
        await asyncio.wait([task], timeout=self.config.time_limit)
        if not task.done():
            task.cancel()
            raise Late
        return task.result()

    def _call(self, offered: Mapping[str, Sequence[Any]]) -> Callable[[], Any]:
        """The call for a thread of its own; whatever awaitable comes of it is awaited there."""
        arguments = self._arguments(offered)

        def call() -> Any:
            result = type(self).function(**arguments)
            return run_awaitable(result) if inspect.isawaitable(result) else result

        return call

    def _arguments(self, offered: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        return accepted(type(self).function, dict(offered))


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
            f"task nor passed by the run.{suggest(missing[0], offered)} "
            f"There are: {', '.join(sorted(offered))}"
        )
    return taken
