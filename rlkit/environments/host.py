"""The process that runs tools and environments: one fork of it per episode.

It imports the user's code once, then waits on a Unix socket. Each message brings the socket of a
new episode, for which it forks: a copy takes a millisecond, shares the memory of what was imported,
and may be killed at any moment. The copy answers JSON lines until its socket is closed.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import json
import math
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rlkit.environments.jail import die_with_parent, limit_memory
from rlkit.environments.limits import OutOfTime, Told, gathered, guarded, in_time, limited
from rlkit.plugins import import_plugin

LONGEST = 200_000
"""Characters of an answer that are kept; the run cuts it further, by tokens."""
SHORTEST = 0.01
"""Seconds below which a call is not begun."""
RESERVED = ("reset", "get_reward")


def found(path: str) -> Any:
    """What `module:name` names; the module may be a file."""
    module, _, name = path.rpartition(":")
    value: Any = import_plugin(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def tool_names(cls: type[Any]) -> list[str]:
    """The names of the methods that are tools, as in TRL: public, in alphabetical order."""
    members = inspect.getmembers(cls, predicate=inspect.isfunction)
    return [name for name, _ in members if name not in RESERVED and not name.startswith("_")]


class Episode:
    """An environment object, or none, and tools: what one fork runs."""

    def __init__(self, factory: Callable[[], Any] | None, tools: Sequence[Callable[..., Any]]):
        self.runner = asyncio.Runner()
        self.tools = {tool.__name__: tool for tool in tools}
        self.object: Any = None
        if factory is not None:
            self.object = factory()
            self.tools |= {n: getattr(self.object, n) for n in tool_names(type(self.object))}

    def finished(self, value: Any, seconds: float) -> Any:
        """What a call returned; awaited if it is async."""
        return self.runner.run(limited(value, seconds)) if inspect.isawaitable(value) else value

    def reset(self, row: Mapping[str, Any], seed: int, later: int, limit: float) -> Any:
        """What `reset` returns. Random draws in it derive from `seed`, those after it, `later`."""
        seed_all(seed)
        text = None
        if self.object is not None:
            text = in_time(limit, lambda: self.finished(self.object.reset(**row), limit))
        seed_all(later)
        if text is not None and not isinstance(text, str):
            raise TypeError(f"it returned {type(text).__name__}, not a text or None")
        return text

    def call(self, calls: Sequence[Mapping[str, Any]], limit: float, most: float) -> dict[str, Any]:
        """The answers to a turn's calls, in their order; those of async tools run side by side.

        A call has `limit` seconds, and all of them `most`; what is then left over is not run.
        """
        end = time.monotonic() + most
        results: dict[int, Any] = {}
        waiting: dict[int, Any] = {}
        for i, call in enumerate(calls):
            left = round(end - time.monotonic(), 2)
            if left < SHORTEST:
                results[i] = ValueError(f"not run: the calls of a turn have {most:g} s")
                continue
            value = guarded(min(limit, left), partial(self._called, call))
            (waiting if inspect.isawaitable(value) else results)[i] = value
        if waiting:
            left = min(limit, max(round(end - time.monotonic(), 2), SHORTEST))
            together = gathered(list(waiting.values()), left)
            # Asyncio keeps the time, unless a tool blocks the loop.
            done = guarded(left + 1, lambda: self.runner.run(together))
            each = [done] * len(waiting) if isinstance(done, BaseException) else done
            results |= dict(zip(waiting, each, strict=True))
        return {
            "answers": [answer(results[i], limit) for i in range(len(calls))],
            "done": self._says_done() and bool(self.object.done),
        }

    def reward(self, limit: float) -> Any:
        """What `get_reward` returns."""
        value = in_time(limit, lambda: self.finished(self.object.get_reward(), limit))
        if isinstance(value, bool) or value is None:
            return None if value is None else float(value)
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"it returned {value}; a reward is a finite number or None")
        return value

    def attribute(self, name: str, arguments: Sequence[Any] | None, limit: float) -> Any:
        """An attribute for a reward function, or what a method returns."""
        value = getattr(self.object, name)
        if arguments is not None:
            return in_time(limit, lambda: self.finished(value(*arguments), limit))
        return {"method": True} if callable(value) else {"value": value}

    def _called(self, call: Mapping[str, Any]) -> Any:
        tool = self.tools.get(call["name"])
        if tool is None:
            raise ValueError(f"Tool {call['name']} not found.")
        return tool(**call["arguments"])

    def _says_done(self) -> bool:
        """`done` ends an episode if it is a property: as a mere attribute it is the user's own."""
        return isinstance(inspect.getattr_static(type(self.object), "done", None), property)


def seed_all(seed: int) -> None:
    """Seed the global generators of Python and, if it is loaded, numpy."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def answer(value: Any, seconds: float) -> dict[str, Any]:
    """A tool's result as what the policy is told: TRL's texts. Making one may fail as calls do."""
    if not isinstance(value, BaseException):
        value = guarded(seconds, partial(told, value))
    failed, late = isinstance(value, BaseException), isinstance(value, OutOfTime)
    if late:
        text = str({"error": f"no result after {value.args[0]:g} s"})
    elif isinstance(value, BaseException):
        made = guarded(seconds, partial(str, value))
        words = made if isinstance(made, str) else type(value).__name__
        text = words if isinstance(value, Told) else str({"error": words})
    else:
        text = value
    if len(text) > LONGEST:
        text = text[:LONGEST]
    readable = text.encode("utf-8", "replace").decode()
    return {"text": readable, "failed": failed, "late": late}


def told(value: Any) -> str:
    """The text of a result; content blocks that are all texts are joined."""
    try:
        if isinstance(value, list) and value and all(map(_is_text, value)):
            return "".join(block["text"] for block in value)
    except (TypeError, KeyError):
        pass
    return str(value)


def _is_text(block: Any) -> bool:
    return isinstance(block, Mapping) and block.get("type") == "text"


def serve(channel: socket.socket, make: Callable[[], Episode], memory_mb: int | None) -> None:
    """Answer requests until the socket closes. Each holds "do" and the arguments of a method."""
    stream = channel.makefile("rwb")
    episode: Episode | None = None

    def asked(request: dict[str, Any]) -> Any:
        nonlocal episode
        if episode is None:
            if memory_mb is not None:
                limit_memory(memory_mb)
            episode = in_time(request["limit"], make)
        return getattr(episode, request.pop("do"))(**request)

    for line in stream:
        stream.write(reply(partial(asked, json.loads(line))).encode() + b"\n")
        stream.flush()


def reply(ask: Callable[[], Any]) -> str:
    """What a request gives, {"value"}, or what it raised, {"error"}, as JSON."""
    try:
        return json.dumps({"value": ask()})
    except OutOfTime as error:
        return json.dumps({"error": f"it took more than {error.args[0]:g} s"})
    except (Exception, SystemExit) as error:
        return json.dumps({"error": described(error)})


def described(error: BaseException) -> str:
    """The kind of an error, its message and the line that raised it, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and "/asyncio/" not in f.filename]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"


def main(control_fd: int, spec: Mapping[str, Any]) -> None:
    """Fork for each episode until the control socket closes."""
    control = socket.socket(fileno=control_fd)
    factory = None if spec["factory"] is None else found(spec["factory"])
    for name in spec["preload"]:
        importlib.import_module(name)
    make = None if factory is None else partial(factory, **spec["settings"])
    tools = [found(path) for path in spec["tools"]]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.sendall(b"r")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    gc.freeze()
    parent = os.getpid()
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return
        if os.fork() == 0:
            break
        os.close(descriptors[0])
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    die_with_parent(parent)
    channel = socket.socket(fileno=descriptors[0])
    channel.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    serve(channel, lambda: Episode(make, tools), spec["memory_mb"])
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
