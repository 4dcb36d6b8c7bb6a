"""`python -m rlkit.serve [model] --port 8001`: a vLLM server for rollout=vllm_server.

It becomes the server; options it does not know go to vLLM (`--tensor-parallel-size 2`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence

from rlkit.composition.guard import guarded
from rlkit.config.run import EMBEDDED, ModelConfig
from rlkit.models.load import load_policy
from rlkit.rollout.vllm.engine import require_vllm
from rlkit.rollout.vllm.worker import EXTENSION
from rlkit.rollout.weights import write_config, write_weights


def command(folder: str, host: str, port: int, extra: Sequence[str]) -> list[str]:
    """The command line of a server with the model and tokenizer of a folder."""
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", folder, "--host", host, "--port", str(port)),
        *("--worker-extension-cls", EXTENSION),
        *("--generation-config", "vllm", "--max-logprobs", "-1"),
        *extra,
    ]


def serve(model: str, host: str, port: int, extra: Sequence[str]) -> None:
    """Save the model where vLLM can read it, then replace this process with the server.

    vLLM's development mode offers the calls that change weights.
    """
    require_vllm()
    source = model
    if model == EMBEDDED:
        from rlkit.models.embedded import embedded_model_dir

        source = str(embedded_model_dir())
    policy = load_policy(ModelConfig(name=model, device="cpu"), source, temperature=1.0)
    folder = tempfile.mkdtemp(prefix="rlkit-serve-")
    write_config(policy, folder)
    write_weights(policy, folder)
    environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1"}
    os.execve(sys.executable, command(folder, host, port, extra), environment)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; a user's mistake prints one line and exits with status 2."""
    known = argparse.ArgumentParser(prog="rlkit serve", description=__doc__)
    known.add_argument("model", nargs="?", default=EMBEDDED, help="as model.name of a run")
    known.add_argument("--host", default="127.0.0.1")
    known.add_argument("--port", type=int, default=8000)
    a, extra = known.parse_known_args(arguments)
    return guarded(lambda: serve(a.model, a.host, a.port, extra))


if __name__ == "__main__":
    sys.exit(main())
