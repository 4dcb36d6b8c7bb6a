"""A user's class or functions, written for TRL, as an environment."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from rlkit.environments.host import found, tool_names
from rlkit.environments.hosted import Hosted
from rlkit.errors import UserError, known_names, suggest, with_article
from rlkit.interfaces import Environment
from rlkit.plugins import FROM_FILE, import_plugin
from rlkit.registry import wraps_classes

IDEMPOTENT = "idempotent"
"""The attribute by which a tool, or a class for all of its own, says whether a call that is made a
second time does no harm; True if it is missing."""
PLACE = "put it into a file of its own and give it as ./file.py:name"


@wraps_classes("environment")
@cache
def environment_class(made_by: Callable[[], Any]) -> type[Environment[Any]]:
    """The environment of a class with `reset(**row)`, or of a function that makes such an object.

    Its public methods are the tools; `get_reward`, if it has one, is a reward of its own. Both may
    be async. The class has the name of the user's and is the same at each call. A class may have
    the properties `done`, which ends the episode, `turn_state`, which tells states apart, and
    `turn_reward`, what the last turn earned. Raises UserError for a class that cannot be used.
    """
    cls = made_by if isinstance(made_by, type) else _type_made(made_by)
    title = f"environment '{cls.__name__}'"
    if not callable(getattr(cls, "reset", None)):
        raise UserError(f"{title} has no method reset(self, **row), which starts an episode")
    names = tool_names(cls)
    if not names and not callable(getattr(cls, "get_reward", None)):
        raise UserError(f"{title} has no public method that could be a tool")
    if isinstance(made_by, type):
        _check_takes_nothing(made_by, title, "__init__")
    own_reward = callable(getattr(cls, "get_reward", None))
    if own_reward:
        _check_takes_nothing(bound(cls, "get_reward"), title, "get_reward")
    columns, needed = _columns(bound(cls, "reset"))
    return _class(
        cls.__name__,
        inspect.getdoc(cls),
        factory=origin(made_by, title),
        functions=tuple(schema(bound(cls, name), title) for name in names),
        once=called_once(cls, names),
        columns=columns,
        needed=needed,
        own_reward=own_reward,
        own_state=_has_property(cls, "turn_state"),
        own_turn_reward=_has_property(cls, "turn_reward"),
        __module__=made_by.__module__,
        __qualname__=getattr(made_by, "__qualname__", cls.__name__),
    )


def with_tools(
    environment: type[Environment[Any]] | None, tools: Sequence[str]
) -> type[Environment[Any]]:
    """An environment of functions, `./file.py:name` or `module:name` each, or with them besides.

    Raises UserError for what is no typed function with a docstring, for two tools of one name, and
    if the environment is none of a user's own class.
    """
    base: type[Environment[Any]] = Hosted if environment is None else environment
    if not issubclass(base, Hosted):
        raise UserError(
            f"tools= go with an environment of your own, and {base.__name__} has its own tools"
        )
    functions = [_tool(path) for path in tools]
    schemas = [*base.functions, *(schema(function, "tools") for function in functions)]
    names = [each["function"]["name"] for each in schemas]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two tools are called '{name}'; rename one")
    return _class(
        "tools" if environment is None else base.__name__,
        base.__doc__,
        base,
        tools=tuple(origin(function, f"tool '{function.__name__}'") for function in functions),
        functions=tuple(schemas),
        once=base.once | {f.__name__ for f in functions if not getattr(f, IDEMPOTENT, True)},
    )


def called_once(cls: type[Any], names: Sequence[str]) -> frozenset[str]:
    """The tools of a class that say `idempotent = False` of themselves, or all if it does."""
    all_of_them = getattr(cls, IDEMPOTENT, True)
    return frozenset(n for n in names if not getattr(bound(cls, n), IDEMPOTENT, all_of_them))


def schema(function: Callable[..., Any], title: str) -> dict[str, Any]:
    """The JSON schema of a tool, as transformers makes it. Raises UserError if it cannot."""
    from transformers.utils.chat_template_utils import (
        DocstringParsingException,
        TypeHintParsingException,
        get_json_schema,
    )

    name = getattr(function, "__name__", repr(function))
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UserError(
                f"{title}: tool '{name}' takes *{parameter.name}, which no schema can describe; "
                "name its arguments"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise UserError(
                f"{title}: tool '{name}' takes '{parameter.name}' by position only; calls give "
                "arguments by name"
            )
    try:
        return dict(get_json_schema(function))
    except (DocstringParsingException, TypeHintParsingException, NameError, TypeError) as error:
        message = " ".join(" ".join(map(str, error.args)).split())
        raise UserError(
            f"{title}: tool '{name}' needs type hints and a Google docstring with a line for each "
            f"argument: {message}"
        ) from None


def origin(thing: Any, title: str) -> str:
    """Where another process finds an object again, `file.py:name` or `module:name`.

    Raises UserError for what only this process knows.
    """
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    if module is None or module.__name__ == "__main__":
        raise UserError(f"{title} is known to this script alone, and runs elsewhere; {PLACE}")
    names = [name for name, value in vars(module).items() if value is thing]
    if not names:
        raise UserError(
            f"{title} is no name of {module.__name__}, but made by a function or a call; {PLACE}"
        )
    name = thing.__name__ if getattr(thing, "__name__", None) in names else names[0]
    file = module.__file__ or ""
    return f"{file if module.__name__.startswith(FROM_FILE) else module.__name__}:{name}"


def bound(cls: type[Any], name: str) -> Any:
    """A method without its `self`."""
    found = inspect.getattr_static(cls, name)
    return getattr(cls, name) if isinstance(found, staticmethod) else found.__get__(cls, cls)


def _tool(path: str) -> Callable[..., Any]:
    module, colon, name = path.rpartition(":")
    if not colon:
        raise UserError(f"tools: '{path}' names no function; give ./file.py:name or module:name")
    members = [each for each in vars(import_plugin(module)) if not each.startswith("_")]
    if name not in members:
        raise UserError(
            f"{module} has no '{name}'.{suggest(name, members)} "
            f"{known_names(name, members, module)}"
        )
    tool = found(path)
    if not inspect.isfunction(tool):
        raise UserError(f"tools: {path} is no function, but {with_article(type(tool).__name__)}")
    return tool


def _type_made(make: Callable[[], Any]) -> type[Any]:
    """The class of what a function makes."""
    name = getattr(make, "__name__", type(make).__name__)
    try:
        return type(make())
    except Exception as error:
        message = " ".join(str(error).split())[:300]
        raise UserError(
            f"environment '{name}' cannot be made: {type(error).__name__}: {message}"
        ) from error


def _check_takes_nothing(function: Callable[..., Any], title: str, name: str) -> None:
    for parameter in inspect.signature(function).parameters.values():
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variable:
            raise UserError(
                f"{title}: {name} needs the argument '{parameter.name}', and is called with none"
            )


def _has_property(cls: type[Any], name: str) -> bool:
    """Whether a class has it as a property: as a mere attribute it is the user's own matter."""
    return isinstance(inspect.getattr_static(cls, name, None), property)


def _columns(reset: Callable[..., Any]) -> tuple[frozenset[str] | None, frozenset[str]]:
    """The columns that `reset` takes (None = all), and those it needs."""
    parameters = inspect.signature(reset).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = frozenset(p.name for p in named if p.default is p.empty)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return None if takes_all else frozenset(p.name for p in named), needed


def _class(
    name: str, about: str | None, base: type[Hosted[Any]] = Hosted, **body: Any
) -> type[Hosted[Any]]:
    return type(name, (base,), {"__doc__": about, "__module__": __name__, **body})
