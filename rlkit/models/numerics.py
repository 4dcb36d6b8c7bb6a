"""How exactly torch computes: TF32, and deterministic algorithms."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

import torch

from rlkit.config.run import ModelConfig

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
DETERMINISTIC_WORKSPACE = ":4096:8"
"""With this one cuBLAS repeats itself; it takes some MiB of GPU memory."""


def set_numerics(config: ModelConfig) -> None:
    """Have torch compute as the configuration says, for as long as the process lives."""
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.use_deterministic_algorithms(config.deterministic)
    if config.deterministic:
        os.environ.setdefault(WORKSPACE, DETERMINISTIC_WORKSPACE)


@contextmanager
def numerics(config: ModelConfig) -> Generator[None]:
    """Has torch compute as the configuration says inside this context, and as before after it."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(WORKSPACE)
    set_numerics(config)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = convolution
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
