"""A bar on the terminal for what takes long; nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def bar(console: Console) -> Generator[Callable[[str, int, int], None]]:
    """Something to tell of a task how much is done, and of how much; a new task is a new bar."""
    if not console.is_terminal:
        yield lambda task, done, of: None
        return
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    begun: dict[str, int] = {}

    def tell(task: str, done: int, of: int) -> None:
        if task not in begun:
            begun[task] = int(shown.add_task(task, total=of))
        shown.update(shown.task_ids[begun[task]], completed=done)

    with shown:
        yield tell
