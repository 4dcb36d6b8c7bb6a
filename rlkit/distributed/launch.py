"""Joining the process group of `accelerate launch` or `torchrun`."""

from __future__ import annotations

import os
from functools import cache

import torch

from rlkit.distributed.deepspeed import DeepSpeed
from rlkit.distributed.fsdp import FSDP
from rlkit.distributed.processes import SINGLE, MultiProcess, Processes
from rlkit.distributed.rank import launched
from rlkit.errors import UserError


def asked_for(variable: str) -> bool:
    """Whether accelerate's launcher set a flag."""
    return os.environ.get(variable, "false").lower() in ("true", "1", "yes")


@cache
def open_processes(device: str) -> Processes:
    """Join the other processes, if there are any, to train on a `model.device`.

    Raises UserError for an unsupported launch configuration.
    """
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no":
        raise UserError(
            f"the launch asks for mixed_precision={precision}; set it in rlkit instead, with "
            "model.autocast=bfloat16 or model.dtype=bfloat16, and launch with --mixed_precision no"
        )
    if launched()[1] == 1:
        return SINGLE
    cpu = device == "cpu" or not torch.cuda.is_available()
    if asked_for("ACCELERATE_USE_DEEPSPEED"):
        return DeepSpeed(cpu=cpu)
    if not asked_for("ACCELERATE_USE_FSDP"):
        return MultiProcess(cpu=cpu)
    if cpu or os.environ.get("FSDP_VERSION") != "2":
        raise UserError("FSDP needs fsdp_version: 2 and GPUs; see configs/accelerate/fsdp2.yaml")
    if asked_for("FSDP_OFFLOAD_PARAMS"):
        raise UserError(
            "the launch asks for fsdp_offload_params, which is not supported; keep anchors' copies "
            "in host memory instead (anchor.device=cpu), or shard over more GPUs"
        )
    return FSDP(cpu=False)


def close_processes() -> None:
    """Leave the process group, if there is one, once every rank has reached this call."""
    if launched()[1] > 1 and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
