"""Environments and tools that use what the interface allows, and ways in which they go wrong."""

import asyncio
import contextlib
import os
import random
import time


class Journal:
    """An async environment that remembers what it was told, and how it drew."""

    def __init__(self):
        self.notes = []

    async def reset(self, prompt, start: int = 0) -> str | None:
        self.notes.append(prompt)
        self.first = random.random()
        return None

    @property
    def done(self) -> bool:
        return "end" in self.notes

    async def get_reward(self) -> float:
        await asyncio.sleep(0)
        return len(self.notes) / 10

    async def write(self, text: str) -> str:
        """Write a note.

        Args:
            text: What to write.
        """
        self.notes.append(text)
        return f"{text} {random.random()}"

    def crash(self) -> str:
        """End the process."""
        os._exit(1)

    def fail(self) -> str:
        """Raise."""
        raise ValueError("Game over.")

    def stubborn(self) -> str:
        """Never end."""
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(1)

    def leave(self) -> str:
        """Leave."""
        raise SystemExit(2)

    def opinion(self) -> object:
        """Return no JSON value."""
        return object()


class Stairs:
    """Tells its state, and what its last turn earned."""

    def reset(self, **row) -> None:
        self.height = 0

    @property
    def turn_state(self):
        return {"height": self.height}

    @property
    def turn_reward(self):
        return "far" if self.height > 100 else self.height if self.height > 0 else None

    def climb(self, steps: int) -> int:
        """Climb.

        Args:
            steps: How many.
        """
        self.height += steps
        return self.height


def make_journal():
    return Journal()


def sleepy(seconds: float) -> str:
    """Sleep.

    Args:
        seconds: How long.
    """
    time.sleep(seconds)
    return "slept"


async def async_sleepy(seconds: float) -> str:
    """Sleep beside others.

    Args:
        seconds: How long.
    """
    await asyncio.sleep(seconds)
    return "slept"


def process(_unused: int = 0) -> str:
    """Tell the process.

    Args:
        _unused: Nothing.
    """
    return str(os.getpid())


def children(path: str) -> str:
    """Start a process that outlives a call, and say which.

    Args:
        path: Where it writes.
    """
    import subprocess

    return str(subprocess.Popen(["sleep", "60"]).pid)


def blocks(kind: str) -> list:
    """Return content blocks.

    Args:
        kind: The type of the second.
    """
    return [{"type": "text", "text": "a"}, {"type": kind, "text": "b"}]


def lengthy(n: int) -> str:
    """Return a long text, with half of a surrogate pair.

    Args:
        n: How long.
    """
    return "\ud800" + "x" * n


def secret(name: str) -> str:
    """Tell an environment variable.

    Args:
        name: Its name.
    """
    return os.environ.get(name, "unset")


def pay(amount: int) -> str:
    """Pay.

    Args:
        amount: How much.
    """
    return f"paid {amount}"


pay.idempotent = False  # type: ignore[attr-defined]


class Shop:
    """Nothing of it may be done twice, but for looking."""

    idempotent = False

    def reset(self) -> None:
        pass

    def buy(self, what: str) -> str:
        """Buy.

        Args:
            what: What.
        """
        return what

    def look(self) -> str:
        """Look."""
        return "all"

    look.idempotent = True  # type: ignore[attr-defined]
