"""A plug-in that kills its own process at a chosen moment: KILL="forward:12" in the environment.

    forward:n  in the n-th forward of the model (a rollout, an evaluation, an update)
    reward:n   in the n-th call of the rewards
    tree:n     with the n-th file of a checkpoint's state half-written
    fsync:n    before the n-th file of a checkpoint reaches the disk
    rename:n   before a finished checkpoint gets its name
    remove:n   before the n-th old checkpoint, without its name already, is removed
    call:n     while the n-th turn with calls waits for its tools
    log:n      with half of the n-th line of metrics.jsonl written
    time:x     x seconds after the plug-in was imported

SIGNAL names another signal than SIGKILL, which the process then receives and goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import transformers.models.llama.modeling_llama as llama

import rlkit.environments.channel
import rlkit.rewards.scoring
import rlkit.runs.checkpoint
import rlkit.runs.folder
import rlkit.training.state


def strike() -> None:
    os.kill(os.getpid(), getattr(signal, os.environ.get("SIGNAL", "SIGKILL")))


def at_call(owner: Any, name: str, number: int, before: Callable[..., None]) -> None:
    """Strike at the n-th call of a function, after `before` has had its arguments."""
    real, count = getattr(owner, name), iter(range(1, 10**9))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(count) == number:
            before(*args, **kwargs)
            strike()
        return real(*args, **kwargs)

    setattr(owner, name, counted)


def nothing(*args: Any, **kwargs: Any) -> None:
    """Strike right away."""


def half_a_tree(path: Any, tree: Any) -> None:
    path.with_suffix(".json").write_text('{"half')


def half_a_line(self: Any, step: int, metrics: Any) -> None:
    with self.metrics.open("a") as file:
        file.write(f'{{"step": {step}, "half')


def at_tools(number: int) -> None:
    """Strike a moment after the n-th turn's calls were handed to their process."""
    real, count = rlkit.environments.channel.Channel.ask, iter(range(1, 10**9))

    def asked(self: Any, do: str, seconds: float, **arguments: Any) -> Any:
        if do == "call" and next(count) == number:
            threading.Timer(0.005, strike).start()
        return real(self, do, seconds, **arguments)

    rlkit.environments.channel.Channel.ask = asked  # type: ignore[method-assign]


MOMENTS: dict[str, tuple[Any, str, Callable[..., None]]] = {
    "forward": (llama.LlamaForCausalLM, "forward", nothing),
    "reward": (rlkit.rewards.scoring.RewardSet, "score", nothing),
    "tree": (rlkit.training.state, "save_tree", half_a_tree),
    "fsync": (rlkit.runs.checkpoint, "_sync", nothing),
    "rename": (rlkit.runs.checkpoint, "_put_in_place", nothing),
    "remove": (rlkit.runs.checkpoint, "_remove", nothing),
    "log": (rlkit.runs.folder.RunFolder, "log", half_a_line),
}

kind, _, when = os.environ.get("KILL", "").partition(":")
if kind == "time":
    threading.Timer(float(when), strike).start()
elif kind == "call":
    at_tools(int(when))
elif kind:
    owner, name, before = MOMENTS[kind]
    at_call(owner, name, int(when), before)
