"""What a launcher sets in the environment, and what this version cannot train under."""

from __future__ import annotations

import pytest
import torch

from rlkit.distributed import launch
from rlkit.distributed.launch import asked_for, open_processes
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError

VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "ACCELERATE_MIXED_PRECISION",
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_FSDP",
    "FSDP_VERSION",
    "FSDP_OFFLOAD_PARAMS",
)


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def opened(monkeypatch: pytest.MonkeyPatch, device: str = "cpu", **variables: str) -> Processes:
    """What a launch gives, asked afresh: `open_processes` answers once a process."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return open_processes.__wrapped__(device)


@pytest.mark.parametrize(
    ("value", "asked"), [("true", True), ("True", True), ("1", True), ("false", False), ("", False)]
)
def test_a_switch_of_the_launcher(monkeypatch: pytest.MonkeyPatch, value: str, asked: bool) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", value)
    assert asked_for("ACCELERATE_USE_FSDP") == asked
    assert not asked_for("ACCELERATE_USE_DEEPSPEED")


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(monkeypatch) is SINGLE
    assert opened(monkeypatch, WORLD_SIZE="1", ACCELERATE_USE_FSDP="true") is SINGLE


@pytest.mark.parametrize(
    ("variables", "kind"),
    [({}, "MultiProcess"), ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed")],
)
def test_several_processes_join_as_they_were_launched(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], kind: str
) -> None:
    made: list[tuple[str, bool]] = []

    def joins(name: str):
        def join(*, cpu: bool) -> Processes:
            made.append((name, cpu))
            return SINGLE

        return join

    for name in ("MultiProcess", "DeepSpeed", "FSDP"):
        monkeypatch.setattr(launch, name, joins(name))
    opened(monkeypatch, WORLD_SIZE="2", **variables)
    assert made == [(kind, True)]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "model.autocast=bfloat16"),
        ({"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "and GPUs"),
        (
            {
                "WORLD_SIZE": "2",
                "ACCELERATE_USE_DEEPSPEED": "true",
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
            },
            "ZeRO stage 3 is not supported",
        ),
    ],
)
def test_a_launch_that_cannot_be_trained_under_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        opened(monkeypatch, **variables)


def test_weights_in_host_memory_are_refused_on_gpus_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sharded = {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    with pytest.raises(UserError, match="fsdp_offload_params, which is not supported"):
        opened(monkeypatch, "cuda", **sharded, FSDP_OFFLOAD_PARAMS="true")


def test_leaving_without_a_group_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    launch.close_processes()
