"""The process that generates while another one trains: `python -m rlkit.rollout.worker <folder>`.

The folder holds `spec.json` and the model. Commands come as JSON lines on stdin and run in order:
{"do": "weights", "step"}, whose file is in the folder, and {"do": "generate", "number", "requests",
"stream", "greedy", "part", "sampling"}. A reply line {"number"} says that `answer-<number>` is
written in the folder, {"error"} that no more replies will follow. The process exits, and removes
the folder, as soon as its stdin closes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

import torch
from safetensors.torch import load_model

from rlkit.batch import Prompt, Request
from rlkit.config.run import ModelConfig
from rlkit.config.sampling import Sampling
from rlkit.config.turns import TurnsConfig
from rlkit.errors import UserError
from rlkit.models.load import load_policy
from rlkit.models.numerics import set_numerics
from rlkit.models.policy import Policy
from rlkit.plugin_parts import register_from_plugins
from rlkit.plugins import import_plugin
from rlkit.registry import build
from rlkit.rollout.base import GenerationCall, RolloutEngine
from rlkit.rollout.packing import pack
from rlkit.rollout.turns import TurnsEngine
from rlkit.rollout.turns_built import built, names_in, remembering
from rlkit.runs.checkpoint import save_tree

SPEC = "spec.json"
MODEL = "model"
Command = dict[str, Any]


def weights_file(folder: Path, step: int) -> Path:
    """Where the weights of the start of a training step are handed over."""
    return folder / f"weights-{step}.safetensors"


def newest_first(commands: Sequence[Command]) -> list[Command]:
    """The commands with the newest weights moved to the front and older ones left out."""
    weights = [command for command in commands if command["do"] == "weights"]
    return weights[-1:] + [command for command in commands if command["do"] != "weights"]


class Inbox:
    """Commands in order; or, if not `ordered`, the newest weights before any other."""

    def __init__(self, lines: Iterable[str], folder: Path, *, ordered: bool) -> None:
        self.ordered = ordered
        self.pending: list[Command] = []
        self.arrived: SimpleQueue[Command] = SimpleQueue()
        threading.Thread(target=self._read, args=(lines, folder), daemon=True).start()

    def _read(self, lines: Iterable[str], folder: Path) -> None:
        for line in lines:
            self.arrived.put(json.loads(line))
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)  # the trainer is gone; also ends a generation in progress

    def next(self) -> Command:
        """The next command; waits for it."""
        if not self.pending:
            self.pending.append(self.arrived.get())
        while not self.arrived.empty():
            self.pending.append(self.arrived.get())
        if not self.ordered:
            self.pending = newest_first(self.pending)
        return self.pending.pop(0)


def in_turns(
    engine: RolloutEngine[Any], episodes: dict[str, Any], plugins: Sequence[str]
) -> TurnsEngine:
    """The engine with the environment, the tools and the limits of the sections in `episodes`."""
    node = episodes.get("environment")
    for name in names_in(node):
        register_from_plugins("environment", name, plugins)
    environment = built(node, episodes["tools"])
    assert environment is not None
    environment.context = remembering(*map(Path, episodes["journals"]))
    return TurnsEngine(engine, environment, TurnsConfig.model_validate(episodes["turns"]))


class Generator:
    """An engine on a copy of the policy."""

    def __init__(self, folder: Path, spec: dict[str, Any]) -> None:
        for plugin in spec["plugins"]:
            import_plugin(plugin)
        register_from_plugins("rollout", spec["engine"], spec["plugins"])
        torch.set_num_threads(spec["threads"])
        self.folder = folder
        self.engine: RolloutEngine[Any] = build("rollout", spec["engine"], **spec["config"])
        if spec["episodes"] is not None:
            self.engine = in_turns(self.engine, spec["episodes"], spec["plugins"])
        temperature = self.engine.config.temperature
        model = ModelConfig.model_validate(spec["model"])
        set_numerics(model)
        self.policy: Policy = load_policy(model, folder / MODEL, temperature)
        self.engine.reserve(*spec["reserved"])
        self.engine.start(self.policy, spec["seed"])
        self.taken = 0
        """The step of the newest weights that were loaded."""

    def take_weights(self, step: int) -> None:
        """Load the weights of the start of a training step; remove their file and older ones."""
        device = str(self.policy.device)
        load_model(self.policy.model, weights_file(self.folder, step), device=device)
        self.engine.sync(step)
        for number in range(self.taken + 1, step + 1):
            weights_file(self.folder, number).unlink(missing_ok=True)
        self.taken = step

    def generate(self, command: Command) -> None:
        """Answer requests, given as [prompt ids, n] and, for an environment, the problem."""
        unknown: Command = {"prompt_id": "", "text_or_messages": "", "columns": {}}
        requests = [
            Request(prompt=Prompt(ids=torch.tensor(ids), **(known[0] if known else unknown)), n=n)
            for ids, n, *known in command["requests"]
        ]
        name, step, call = command["stream"]
        found = self.engine.generate(
            GenerationCall(
                requests,
                (name, step, call),
                greedy=command["greedy"],
                part=slice(*command["part"]),
                sampling=Sampling(**given) if (given := command["sampling"]) is not None else None,
            )
        )
        flat = [generation for group in found for generation in group]
        save_tree(self.folder / f"answer-{command['number']}", pack(flat))


def serve(folder: Path, replies: TextIO) -> None:
    """Run commands until the trainer closes stdin."""
    spec = json.loads((folder / SPEC).read_text())
    inbox = Inbox(sys.stdin, folder, ordered=spec["ordered"])
    generator = Generator(folder, spec)
    print(json.dumps({"number": 0}), file=replies)
    while True:
        command = inbox.next()
        if command["do"] == "weights":
            generator.take_weights(command["step"])
        else:
            generator.generate(command)
            print(json.dumps({"number": command["number"]}), file=replies)


def main() -> int:
    """Serve; errors are reported to the trainer."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        serve(Path(sys.argv[1]), replies)
    except Exception as error:
        traceback.print_exc()
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        print(json.dumps({"error": f"{kind}{error}"}), file=replies)
    return 1


if __name__ == "__main__":
    sys.exit(main())
