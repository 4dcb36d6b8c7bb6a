"""verl's reward functions, `compute_score(data_source, solution_str, ground_truth, extra_info)`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rlkit.errors import UserError
from rlkit.rewards.inputs import completion_text
from rlkit.rewards.values import RowFailed

OWN = ("solution_str", "ground_truth")
"""Arguments by which such a function is known: it scores one completion, and returns a number."""
SCORE = "score"
"""Where a dict that it returns holds the number."""


def scores_one(function: Callable[..., Any]) -> bool:
    """Whether a function has verl's signature."""
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a built-in without one
        return False
    return all(name in names for name in OWN)


def on_all(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with TRL's signature: called once per completion, awaited if it is async.

    `ground_truth` is reward_model.ground_truth, or else the column of that name, or `answer`.
    """

    def each(completions: Sequence[Any], **columns: Sequence[Any]) -> Any:
        rows = [
            {name: values[place] for name, values in columns.items()}
            for place in range(len(completions))
        ]
        found: list[Any] = []
        for place, (completion, row) in enumerate(zip(completions, rows, strict=True)):
            given = arguments(function, completion_text(completion), row)
            with naming(place):
                found.append(function(**given))
        if any(map(inspect.isawaitable, found)):
            return gathered(found)
        return [number(value) for value in found]

    each.__name__ = getattr(function, "__name__", type(function).__name__)
    each.__doc__, each.__module__ = function.__doc__, function.__module__
    return each


@contextmanager
def naming(place: int) -> Generator[None]:
    """Inside, an exception of the user's code becomes that of the completion at `place`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise RowFailed(place) from error


async def gathered(awaitables: Sequence[Any]) -> list[Any]:
    """The numbers of several calls, made at the same time."""

    async def one(place: int, awaitable: Any) -> Any:
        with naming(place):
            return await awaitable

    calls = [one(place, each) for place, each in enumerate(awaitables)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    for each in found:  # whichever failed first, the error is that of the first completion
        if isinstance(each, BaseException):
            raise each
    return [number(value) for value in found]


def arguments(function: Callable[..., Any], text: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """What verl would pass for a row, as far as the function takes it."""
    model = row.get("reward_model")
    nested = model.get("ground_truth") if isinstance(model, Mapping) else None
    answers = (nested, row.get("ground_truth"), row.get("answer"))
    offered = {
        "data_source": row.get("data_source"),
        "solution_str": text,
        "ground_truth": next((each for each in answers if each is not None), None),
        "extra_info": row.get("extra_info"),
    }
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return offered
    return {p.name: offered[p.name] for p in parameters if p.name in offered}


def number(value: Any) -> Any:
    """A score, which verl allows to stand in a dict. Raises UserError for one without it."""
    if not isinstance(value, Mapping):
        return value
    if SCORE not in value:
        raise UserError(f"a reward returned a dict without '{SCORE}': {', '.join(map(str, value))}")
    return value[SCORE]
