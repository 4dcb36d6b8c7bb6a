"""The command that starts a vLLM server."""

from __future__ import annotations

from rlkit.serve import command


def test_a_server_is_started_on_this_machine_with_what_the_engine_needs() -> None:
    words = command("folder", "127.0.0.1", 8001, ["--tensor-parallel-size", "2"])
    line = " ".join(words[1:])
    assert "--model folder --host 127.0.0.1 --port 8001" in line
    assert "--worker-extension-cls rlkit.rollout.vllm.worker.RlkitWorker" in line
    assert "--max-logprobs -1" in line
    assert line.endswith("--tensor-parallel-size 2")
