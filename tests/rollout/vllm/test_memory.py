"""Where vLLM runs and what it leaves to the trainer, on a stand-in for vLLM."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlkit.config.run import ModelConfig
from rlkit.errors import UserError
from rlkit.models.numerics import numerics
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.vllm.engine import VLLMRollout, undisturbed
from rlkit.rollout.vllm.memory import placement, room_for_vllm
from tests.rollout.models import change, make_policy
from tests.rollout.stand_in import drawn, expected, install, started

GIB = 2**30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform that can sleep."""
    install(monkeypatch, sleeps=True)


@pytest.mark.usefixtures("gpu")
def test_it_is_awake_and_holds_weights_only_while_it_generates() -> None:
    """Each generation has the policy's weights; a step that generates nothing wakes nothing."""
    policy = make_policy()
    engine, llm = started(policy)
    assert llm.calls == ["take", "probe", "sleep 2"]
    whole = ["wake weights", "take", "wake kv_cache", "probe", "generate", "sleep 2"]
    for step in (1, 2, 5):
        llm.calls.clear()
        change(policy, "")
        for skipped in range(step - 1):
            engine.sync(skipped + 2)
            assert engine.generate(GenerationCall([], ("t", skipped, 0))) == []
        engine.sync(step)
        assert llm.calls == []
        assert drawn(engine, step) == pytest.approx(expected(policy), abs=1e-5)
        assert llm.calls == whole and llm.version == str(step)
    llm.calls.clear()
    assert drawn(engine, 5) == pytest.approx(expected(policy), abs=1e-5)
    assert llm.calls == whole, "a second generation of a step needs the weights again"


@pytest.mark.usefixtures("gpu")
def test_weights_that_the_policy_no_longer_has_wait_in_host_memory() -> None:
    policy = make_policy()
    engine, llm = started(policy, sync_every=2)
    assert llm.calls == ["take", "probe", "sleep 1"]
    synced = expected(policy)
    for step in (1, 2):
        llm.calls.clear()
        assert drawn(engine, step) == pytest.approx(synced, abs=1e-5)
        assert llm.calls == ["wake weights kv_cache", "generate", "sleep 1"]
        change(policy, "")
    llm.calls.clear()
    engine.sync(3)
    assert llm.calls == ["wake weights kv_cache", "take", "probe", "sleep 1"]
    assert drawn(engine, 3) == pytest.approx(expected(policy), abs=1e-5)
    assert abs(expected(policy) - synced) > 1e-3


@pytest.mark.usefixtures("gpu")
def test_it_ends_awake() -> None:
    """vLLM frees the memory of an engine that ends asleep twice; the next one then gets none."""
    engine, llm = started(make_policy())
    llm.calls.clear()
    engine.close()
    assert llm.calls == ["wake weights kv_cache", "shutdown"]


@pytest.mark.usefixtures("gpu")
def test_too_little_memory_to_wake_up_is_one_line_and_the_engine_still_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, llm = started(make_policy())

    def full(tags: Sequence[str]) -> None:
        raise RuntimeError("CUDA Error: out of memory\nat cumem_allocator.cpp:119")

    monkeypatch.setattr(llm, "wake_up", full)
    with pytest.raises(
        UserError, match=r"as it woke up: CUDA Error.* rollout\.kv_cache_gb"
    ) as told:
        drawn(engine, 1)
    assert "\n" not in str(told.value)
    engine.close()
    assert llm.calls[-1] == "shutdown"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Free memory on device cuda:0 (3.1/79.2 GiB) is less than desired", UserError),
        ("To serve one request, 4 GiB is larger than the available KV cache memory", UserError),
        ("an unknown architecture", ValueError),
        ("CUDA error: an illegal memory access was encountered", ValueError),
    ],
)
def test_too_little_memory_to_start_is_one_line(
    said: str, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sleeps=True)

    def fails(self: VLLMRollout, folder: str) -> None:
        raise ValueError(said)

    monkeypatch.setattr(VLLMRollout, "_build", fails)
    with pytest.raises(expected, match=re.escape(said)):
        started(make_policy())


def test_a_cache_that_is_too_small_is_to_be_larger() -> None:
    said = "the KV cache is needed, which is larger than the available KV cache memory (1.0 GiB)"
    advice = r"set a larger rollout\.kv_cache_gb"
    with pytest.raises(UserError, match=advice), room_for_vllm("started"):
        raise ValueError(said)


@pytest.mark.usefixtures("gpu")
def test_an_engine_that_is_broken_is_still_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, llm = started(make_policy())

    def dead(tags: Sequence[str]) -> None:
        raise RuntimeError("the engine core is dead")

    monkeypatch.setattr(llm, "wake_up", dead)
    with pytest.raises(RuntimeError, match="is dead"):
        engine.close()
    assert llm.calls[-1] == "shutdown"


def test_what_vllm_sets_in_the_process_is_undone() -> None:
    threads = torch.get_num_threads()
    with numerics(ModelConfig(tf32=True)):
        with undisturbed():
            torch.set_num_threads(threads + 1)
            torch.set_float32_matmul_precision("highest")
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("sleeps", "asked"), [(False, True), (True, False)])
def test_without_sleep_a_sync_hands_the_weights_over_at_once(
    sleeps: bool, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sleeps=sleeps)
    policy = make_policy()
    engine, llm = started(policy, sleep=asked)
    assert llm.arguments["enable_sleep_mode"] is False
    change(policy, "")
    engine.sync(2)
    assert drawn(engine, 2) == pytest.approx(expected(policy), abs=1e-5)
    assert llm.calls == ["take", "probe", "take", "probe", "generate"]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("asked", ["bfloat16", "float16"])
def test_it_computes_in_the_dtype_that_is_asked_for(asked: str) -> None:
    policy = make_policy()
    engine, llm = started(policy, dtype=asked)
    assert llm.arguments["dtype"] == asked and policy.model.dtype == torch.float32
    assert {str(p.dtype) for p in llm.model.parameters()} == {f"torch.{asked}"}
    change(policy, "")
    engine.sync(2)
    assert drawn(engine, 2) != expected(policy)
    assert not engine.matches_trainer


class Card:
    """A policy of 2^28 parameters on the second card."""

    device = torch.device("cuda:1")
    model = SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: 2**28)])


def placed(monkeypatch: pytest.MonkeyPatch, *, total: int, **given: Any) -> dict[str, Any]:
    asked: list[torch.device] = []

    def info(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return 0, total

    monkeypatch.setattr(torch.cuda, "mem_get_info", info)
    policy: Any = Card()
    settings: dict[str, Any] = {"dtype": torch.bfloat16, "kv_cache_gb": 1.5, "share": None, **given}
    found = placement(policy, **settings)
    assert asked == [Card.device]
    return found


def test_on_a_gpu_it_takes_the_policys_card_and_its_weights_and_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """0.5 GiB of weights and 1.5 GiB of cache are a quarter of 8 GiB, and more than 1 GiB."""
    assert placed(monkeypatch, total=8 * GIB) == {
        "device_ids": [1],
        "kv_cache_memory_bytes": 3 * GIB // 2,
        "gpu_memory_utilization": 0.25,
    }
    wider = placed(monkeypatch, total=8 * GIB, dtype=torch.float32)
    assert wider["gpu_memory_utilization"] == 0.3125
    assert placed(monkeypatch, total=GIB)["gpu_memory_utilization"] == 1.0


def test_a_share_replaces_the_size_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    found = placed(monkeypatch, total=8 * GIB, share=0.4)
    assert found == {"device_ids": [1], "gpu_memory_utilization": 0.4}


@pytest.mark.usefixtures("gpu")
def test_what_vllm_is_told_about_memory_without_a_card() -> None:
    _, llm = started(make_policy(), kv_cache_gb=0.5)
    assert llm.arguments["kv_cache_memory_bytes"] == GIB // 2
    assert "gpu_memory_utilization" not in llm.arguments and "device_ids" not in llm.arguments
    _, llm = started(make_policy(), gpu_memory_utilization=0.3)
    assert llm.arguments["gpu_memory_utilization"] == 0.3
    assert "kv_cache_memory_bytes" not in llm.arguments
