"""The Python interpreter that a model's code runs in; it lives in a process of its own."""

from __future__ import annotations

import ast
import contextlib
import io
import traceback
from typing import Any

from rlkit.environments.jail import shut_in
from rlkit.environments.limits import OutOfTime, Told

NAME = "<code>"


class Interpreter:
    """Runs code and says what it prints. Its process is shut in for good when it is made."""

    def __init__(self, *, keep_names: bool) -> None:
        self._keep_names = keep_names
        self._names: dict[str, Any] = fresh_names()
        shut_in()

    def reset(self) -> None:
        """Start without names."""
        self._names = fresh_names()

    def python(self, code: str) -> str:
        """Run Python code and return what it prints, and the value of its last expression.

        Args:
            code: The code, as in a notebook cell.

        Returns:
            What it prints, or the error that it raises.
        """
        names = self._names if self._keep_names else fresh_names()
        return run(code, names)


def fresh_names() -> dict[str, Any]:
    """The names of a module that has just begun."""
    return {"__name__": "__main__"}


def run(code: str, names: dict[str, Any]) -> str:
    """Run code in a namespace; the value of a last expression is printed, unless it is None.

    Raises Told with the output so far and the error, as Python shows it.
    """
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            execute(ast.parse(code, NAME), names)
    except OutOfTime:
        raise
    except BaseException as error:
        raise Told(output.getvalue() + shown(error)) from None
    return output.getvalue().removesuffix("\n")


def execute(tree: ast.Module, names: dict[str, Any]) -> None:
    """Run a module; print the value of its last expression, if it is one."""
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NAME, "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), NAME, "eval"), names)
        if value is not None:
            print(repr(value))


def shown(error: BaseException) -> str:
    """An error as Python shows it, without the frames outside the code."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == NAME
    ]
    lines = traceback.format_list(frames) if frames else []
    head = ["Traceback (most recent call last):\n"] if frames else []
    return "".join([*head, *lines, *traceback.format_exception_only(error)]).strip()
