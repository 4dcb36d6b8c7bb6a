"""Jobs over servers that may fail: each is answered exactly once. Without vLLM."""

from __future__ import annotations

from pathlib import Path

from tests.cli import run
from tests.rollout.servers import free_port


def test_a_run_whose_servers_all_fail_stops_with_one_line(web_server: str, tmp_path: Path) -> None:
    silent = f"http://127.0.0.1:{free_port()}"
    result = run(
        "rollout=vllm_server",
        f'rollout.addresses=["{web_server}","{silent}"]',
        "rollout.tries=1",
        "output_dir=out",
        cwd=tmp_path,
    )
    assert result.status == 2
    *_, line = result.err.splitlines()
    assert line.startswith(f"rlkit: no vLLM server is left ({web_server}: /collective_rpc: status")
    assert f"{silent}: /collective_rpc: ConnectionRefusedError" in line
    assert "Traceback" not in result.err
