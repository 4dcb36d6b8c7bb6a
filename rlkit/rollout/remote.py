"""Any engine in a process of its own, so that it generates while this one trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rlkit.batch import Prompt, Request
from rlkit.config.run import ModelConfig
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.rollout.base import EngineAround, Generation, GenerationCall, RolloutEngine
from rlkit.rollout.packing import unpack
from rlkit.rollout.weights import save_weights, write_config
from rlkit.rollout.worker import MODEL, SPEC, weights_file
from rlkit.runs.checkpoint import load_tree

LAUNCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells the training ranks; the engine's process is not one of them."""


def problem(prompt: Prompt) -> dict[str, Any]:
    """What an environment reads of a prompt, as JSON keeps it.

    Raises UserError for a column that would arrive as something else.
    """
    for name, value in prompt.columns.items():
        try:
            kept = json.loads(json.dumps(value)) == value
        except (TypeError, ValueError):
            kept = False
        if not kept:
            raise UserError(
                f"column '{name}' holds a {type(value).__name__} that cannot be handed to the "
                "environment in the rollout process; make it text, numbers, lists or dicts with "
                "text keys, or use rollout.mode=sync"
            )
    return {
        "prompt_id": prompt.prompt_id,
        "text_or_messages": prompt.text_or_messages,
        "columns": dict(prompt.columns),
    }


class RemoteEngine(EngineAround):
    """An engine that another process runs on a copy of the policy.

    Weights are handed over as a safetensors file, requests as JSON and responses as a tree of
    tensors, in a temporary folder. Commands run in the order given, so which weights answer a
    request does not depend on timing; in mode async without `deterministic` the newest weights are
    loaded before each generation instead.
    """

    def __init__(
        self,
        inner: RolloutEngine[Any],
        name: str,
        model: ModelConfig,
        plugins: Sequence[str],
        episodes: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(inner)
        self.name = name
        self.model = model
        self.plugins = list(plugins)
        self.episodes = episodes
        """The sections `environment` and `turns`, if responses are episodes; they are played in the
        process too."""
        self.process: subprocess.Popen[str] | None = None
        self.reserved = (0, 0)

    def reserve(self, prompt: int, completion: int) -> None:
        """Let the process's engine do so."""
        self.reserved = (prompt, completion)

    def start(self, policy: Policy, seed: int) -> None:
        """Start the process with the policy as it is and wait until it is ready."""
        self.policy, self.number = policy, 0
        self.lengths: dict[int, list[int]] = {}
        """Responses per request, of the generations submitted."""
        self.arrived: dict[int, list[list[Generation]]] = {}
        self.temporary = tempfile.TemporaryDirectory(prefix="rlkit-rollout-")
        self.folder = Path(self.temporary.name)
        write_config(policy, self.folder / MODEL)
        save_weights(policy, self.folder / MODEL / "model.safetensors")
        (self.folder / SPEC).write_text(json.dumps(self._spec(seed)))
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rlkit.rollout.worker", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            env={k: v for k, v in os.environ.items() if k not in LAUNCH} | {"PYTHONPATH": path},
            start_new_session=True,
        )
        self._receive()

    def _spec(self, seed: int) -> dict[str, Any]:
        """What the process needs to know; inside it the engine is in mode sync."""
        c = self.config
        alone = {"mode": "sync", "max_staleness": 0, "deterministic": True}
        if "sleep" in type(c).model_fields:  # the trainer would take what it frees, and keep it
            alone["sleep"] = False
        return {
            "engine": self.name,
            "config": c.model_dump(mode="json") | alone,
            "model": self.model.model_dump() | {"device": str(self.policy.device)},
            "plugins": self.plugins,
            "seed": seed,
            "reserved": self.reserved,
            "threads": torch.get_num_threads(),
            "ordered": c.mode == "ahead" or c.deterministic,
            "episodes": self.episodes,
        }

    def sync(self, step: int) -> None:
        """Hand over the policy's weights; they are used for all later requests."""
        save_weights(self.policy, weights_file(self.folder, step))
        self._send({"do": "weights", "step": step})

    def submit(self, call: GenerationCall) -> int:
        """Request responses; returns the number to `wait` for."""
        self.number += 1
        self.lengths[self.number] = [request.n for request in call.own]
        self._send(
            {
                "do": "generate",
                "number": self.number,
                "requests": [self._request(r) for r in call.requests],
                "stream": call.stream,
                "greedy": call.greedy,
                "part": [call.part.start, call.part.stop],
                "sampling": call.sampling.given if call.sampling else None,
            }
        )
        return self.number

    def _request(self, request: Request) -> list[Any]:
        """A request for the process; an environment there needs the problem too."""
        sent = [request.prompt.ids.tolist(), request.n]
        return sent if self.episodes is None else [*sent, problem(request.prompt)]

    def wait(self, number: int) -> list[list[Generation]]:
        """The responses to what was submitted under a number, request by request."""
        while number not in self.arrived:
            self._receive()
        return self.arrived.pop(number)

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request, in order, after all earlier requests."""
        return self.wait(self.submit(call))

    def close(self) -> None:
        """End the process and remove its folder."""
        if self.process is None:
            return
        self.process.kill()
        self.process.communicate()
        self.stderr.close()
        self.temporary.cleanup()
        self.process = None

    def _send(self, command: dict[str, Any]) -> None:
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._lost() from None

    def _receive(self) -> None:
        """Take one reply; 0 is the process saying that it is ready."""
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._lost()
        reply = json.loads(line)
        if "error" in reply:
            raise UserError(f"the rollout process failed: {reply['error']}")
        if reply["number"]:
            self._take(reply["number"])

    def _take(self, number: int) -> None:
        path = self.folder / f"answer-{number}"
        flat = iter(unpack(load_tree(path)))
        self.arrived[number] = [[next(flat) for _ in range(n)] for n in self.lengths.pop(number)]
        for suffix in (".json", ".safetensors"):
            path.with_suffix(suffix).unlink()

    def _lost(self) -> UserError:
        assert self.process is not None
        status = self.process.wait()
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return UserError(
            f"the rollout process ended with status {status}{last}; "
            "continue from the last checkpoint with resume=auto"
        )
