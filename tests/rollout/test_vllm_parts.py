"""What the vLLM engines do themselves: asking, reading, checking, and HTTP. Without vLLM."""

from __future__ import annotations

import importlib.util
import math
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlkit.batch import Request
from rlkit.config.run import LoraConfig
from rlkit.errors import UserError
from rlkit.models.lora import add_adapter
from rlkit.models.policy import Policy
from rlkit.registry import build, names
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import KEPT
from rlkit.rollout.vllm.client import Server, ServerFault
from rlkit.rollout.vllm.probe import Probe
from rlkit.rollout.vllm.sampling import (
    Answer,
    Asker,
    VLLMSamplingConfig,
    by_request,
    generation,
    kept_logmass,
)
from rlkit.rollout.weights import checkpoint_weights, write_config, write_weights
from rlkit.serve import command
from tests.cli import run
from tests.rollout.models import change, make_policy, requests
from tests.rollout.servers import free_port

STREAM = ("t", 1, 0)


def answer(**fields: object) -> Answer:
    one = {"ids": [3, 1], "logp": [-0.5, -0.25], "top": [[], []], "finish_reason": "stop"}
    return Answer(**{**one, "version": [4, 5], **fields})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def web_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server that is no vLLM: it knows no POST."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
        cwd=tmp_path_factory.mktemp("web"),
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(200):
        try:
            opener.open(address, timeout=5).close()
            break
        except urllib.error.URLError:
            time.sleep(0.05)
    yield address
    process.kill()
    process.wait()


def test_each_response_has_a_seed_of_its_own_that_depends_on_nothing_else() -> None:
    policy = make_policy()
    asker, config = Asker.of(policy, seed=3), VLLMSamplingConfig()
    asked = requests(policy, 3)

    def seeds(some: list[Request], stream: tuple[str, int, int] = STREAM) -> list[int]:
        found = asker.jobs(GenerationCall(some, stream), config)
        return [job.parameters["seed"] for job in found]

    whole = seeds(asked)
    assert len(set(whole)) == 3 * len(asked)
    assert seeds(asked[:2]) == whole[:6]
    assert not set(seeds(asked, ("t", 2, 0))) & set(whole)
    assert not set(seeds(asked, ("u", 1, 0))) & set(whole)
    other = Asker.of(policy, seed=4).jobs(GenerationCall(asked, STREAM), config)
    assert not {job.parameters["seed"] for job in other} & set(whole)
    assert all(0 <= seed < 2**63 for seed in whole)


def test_a_job_holds_the_prompt_and_the_settings_in_order() -> None:
    policy = make_policy()
    config = VLLMSamplingConfig(
        top_k=50, top_p=0.9, temperature=0.7, max_completion_length=9, stop=("#",)
    )
    asker, asked = Asker.of(policy, seed=3), requests(policy, 2)
    first, *_, last = asker.jobs(GenerationCall(asked, STREAM), config)
    assert first.prompt_ids == asked[0].prompt.ids.tolist()
    assert last.prompt_ids == asked[-1].prompt.ids.tolist()
    parameters = dict(first.parameters)
    del parameters["seed"]
    assert parameters == {
        "max_tokens": 9,
        "temperature": 1.0,  # the worker divides the logits by 0.7
        "top_p": 0.9,
        "top_k": 16,  # the whole vocabulary
        "logprobs": 16,
        "stop": ["#"],
        "stop_token_ids": [1],
        "include_stop_str_in_output": True,
    }
    greedy = asker.jobs(GenerationCall(asked, STREAM, greedy=True), config)[0].parameters
    assert [greedy[k] for k in ("temperature", "top_p", "top_k", "logprobs")] == [0.0, 1.0, 0, 0]


def test_the_ends_are_those_of_the_tokenizer_and_of_the_generation_config() -> None:
    policy = make_policy()
    policy.model.generation_config.eos_token_id = [5, 7]
    assert Asker.of(policy, seed=0).ends == [1, 5, 7]


def test_an_answer_becomes_a_generation() -> None:
    found = generation(answer(), VLLMSamplingConfig(), greedy=False)
    assert found.response_ids.tolist() == [3, 1] and found.response_ids.dtype == torch.int64
    assert found.logp.tolist() == [-0.5, -0.25] and found.logp.dtype == torch.float32
    assert found.policy_version.tolist() == [4, 5]
    assert found.policy_version.dtype == torch.int32
    assert found.finish_reason == "stop" and not found.extras


@pytest.mark.parametrize("reason", ["abort", "error", None])
def test_a_response_that_was_not_finished_is_an_error(reason: str | None) -> None:
    with pytest.raises(UserError, match=f"ended a response with '{reason}'"):
        generation(answer(finish_reason=reason), VLLMSamplingConfig(), greedy=False)


def test_the_kept_mass_by_hand() -> None:
    """Probabilities .4 .3 .1 .05: top_k 3 keeps .8; of these, .7 holds top_p of .8 (.8 * .8 = .64),
    and the order in which they are reported does not matter."""
    top = [[math.log(p) for p in (0.1, 0.4, 0.3)], [math.log(p) for p in (0.05, 0.3, 0.4, 0.1)]]
    three = kept_logmass(top, VLLMSamplingConfig(top_k=3))
    torch.testing.assert_close(three.exp(), torch.tensor([0.8, 0.8]))
    nucleus = VLLMSamplingConfig(top_k=3, top_p=0.8)
    torch.testing.assert_close(kept_logmass(top, nucleus).exp(), torch.tensor([0.7, 0.7]))
    assert kept_logmass([], nucleus).shape == (0,)
    assert KEPT in generation(answer(top=top), nucleus, greedy=False).extras
    assert not generation(answer(top=top), nucleus, greedy=True).extras


def test_top_p_alone_is_refused_before_the_run() -> None:
    for name in ("vllm", "vllm_server"):
        with pytest.raises(UserError, match=r"rollout\.top_p=0\.9 needs rollout\.top_k"):
            build("rollout", name, top_p=0.9)
        assert build("rollout", name, top_p=0.9, top_k=50).matches_trainer is False
        assert name in names("rollout")


def test_responses_go_back_to_their_requests() -> None:
    policy = make_policy()
    asked = [
        Request(prompt=r.prompt, n=n) for r, n in zip(requests(policy), (2, 1, 3), strict=False)
    ]
    made = [generation(answer(ids=[i, 1]), VLLMSamplingConfig(), greedy=False) for i in range(6)]
    grouped = [[int(g.response_ids[0]) for g in group] for group in by_request(made, asked)]
    assert grouped == [[0, 1], [2], [3, 4, 5]]


def test_a_probe_measures_names_the_cause_and_stops() -> None:
    policy = make_policy(temperature=0.7)
    probe = Probe(policy, VLLMSamplingConfig(), Asker.of(policy, seed=0))
    assert probe.tolerance == 1e-3
    probe.score()
    assert probe.logp is not None
    before = probe.logp.clone()
    logits = policy.model(torch.tensor([probe.ids])).logits[0, :-1] / 0.7
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(probe.ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(before, expected, atol=1e-5, rtol=0)
    assert probe.check(before + 5e-4, 9.0, "vLLM", 1) == pytest.approx(5e-4, rel=1e-2)
    change(policy, "")
    probe.score()
    for logp, stale, cause in (
        (before, 0.0, "it still has the weights of the previous sync"),
        (before, 0.5, "its packed copy of the LM head is not that of the new weights"),
        (probe.logp + 0.01, 0.0, "some of its weights are not the trainer's"),
    ):
        with pytest.raises(UserError, match=f"sync before step 2 .*0.001.*{cause}"):
            probe.check(logp, stale, "vLLM", 2)


def test_a_probe_is_milder_in_half_precision_and_can_be_set() -> None:
    policy = make_policy()
    asker = Asker.of(policy, seed=0)
    assert Probe(policy, VLLMSamplingConfig(sync_tolerance=0.02), asker).tolerance == 0.02
    torch.nn.Module.to(policy.model, torch.bfloat16)
    assert Probe(policy, VLLMSamplingConfig(), asker).tolerance == 0.3


def test_weights_are_those_of_a_checkpoint(tmp_path: Path) -> None:
    """Tied ones once: vLLM does not expect the head of a tied model."""
    tied, own = make_policy(), make_policy(tied=False)
    assert "lm_head.weight" not in dict(checkpoint_weights(tied))
    assert "lm_head.weight" in dict(checkpoint_weights(own))
    tied.model.config.quantization_config = {"quant_method": "gguf"}
    write_config(tied, str(tmp_path))
    write_weights(tied, str(tmp_path))
    assert "quantization_config" in vars(tied.model.config)
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(read) is type(tied.model)
    assert not hasattr(read.config, "quantization_config")
    expected = tied.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in read.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path)("1+2")["input_ids"] == [3, 12, 4]


def test_adapters_are_added_into_the_weights() -> None:
    """W + B A alpha / r, under the plain model's names."""
    pytest.importorskip("peft")
    policy = make_policy()
    names = set(dict(checkpoint_weights(policy)))
    before = policy.model.state_dict()["model.layers.0.self_attn.q_proj.weight"].clone()
    settings = LoraConfig(r=4, alpha=8)
    adapted = Policy(add_adapter(policy.model, settings), policy.tokenizer, 1.0)
    change(adapted, "lora_", by=0.5)
    found = dict(checkpoint_weights(adapted))
    assert set(found) == names
    model: Any = adapted.model
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    added = layer.lora_B.default.weight @ layer.lora_A.default.weight * 2
    expected = before + added.detach()
    got = found["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_server_that_is_not_there_is_asked_again_with_a_growing_pause() -> None:
    server = Server(f"http://127.0.0.1:{free_port()}", timeout=5, tries=3, backoff=0.2)
    started = time.monotonic()
    with pytest.raises(ServerFault, match="ConnectionRefusedError"):
        server.call("/health")
    assert 0.6 <= time.monotonic() - started < 2


def test_a_dropped_server_is_not_asked_again() -> None:
    server = Server(f"http://127.0.0.1:{free_port()}", timeout=5, tries=3, backoff=9.0)
    server.fault = "it hung"
    with pytest.raises(ServerFault):
        server.call("/health")


def test_a_server_that_never_answers_is_given_up_after_the_limit() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ServerFault, match="TimeoutError"):
            Server(address, timeout=0.3, tries=1, backoff=0).call("/health")
        assert 0.3 <= time.monotonic() - started < 2


def test_a_server_that_is_no_vllm_is_a_fault(web_server: str) -> None:
    server = Server(web_server, timeout=5, tries=1, backoff=0)
    with pytest.raises(ServerFault, match=r"/collective_rpc: status 501"):
        server.worker("rlkit_stale_head")
    with pytest.raises(ServerFault, match="JSONDecodeError"):
        server.call("/")


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


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "here"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="is not an address like"):
        Server(address, timeout=1, tries=1, backoff=0)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_a_run_says_what_to_install(tmp_path: Path) -> None:
    result = run("rollout=vllm", "output_dir=out", cwd=tmp_path)
    assert result.status == 2
    assert result.err.startswith("rlkit: vLLM is not installed; install the extra with pip install")
    assert len(result.err.splitlines()) == 1


def test_a_server_is_started_on_this_machine_with_what_the_engine_needs() -> None:
    words = command("folder", "127.0.0.1", 8001, ["--tensor-parallel-size", "2"])
    line = " ".join(words[1:])
    assert "--model folder --host 127.0.0.1 --port 8001" in line
    assert "--worker-extension-cls rlkit.rollout.vllm.worker.RlkitWorker" in line
    assert "--max-logprobs -1" in line
    assert line.endswith("--tensor-parallel-size 2")
