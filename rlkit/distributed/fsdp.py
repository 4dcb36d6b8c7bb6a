"""FSDP2: weights, gradients and optimizer state sharded over the ranks."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from rlkit.distributed.processes import MultiProcess


class FSDP(MultiProcess):
    """A rank with a shard of the weights, gradients and moments."""

    shards_weights = True

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module itself, its weights sharded as the launch configuration says."""
        stand_in = torch.optim.SGD(module.parameters())  # accelerate asks for one, and changes it
        wrapped, _ = self.accelerator.prepare(module, stand_in)
        self.accelerator.free_memory()  # it would keep both forever
        return cast("nn.Module", wrapped)

    @contextmanager
    def full_weights(self, module: nn.Module) -> Generator[None]:
        """Gathers full weights on every rank inside this context.

        A part has a group of weights, shares one with others, or has none: accelerate gives the
        embedding and the head theirs, which leaves none to the whole model.
        """
        from torch.distributed.fsdp import FSDPModule

        parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
        groups: list[Any] = [
            group
            for part in parts
            for group in part._get_fsdp_state()._fsdp_param_groups  # pyright: ignore[reportPrivateUsage]
        ]
        meshes = [group.post_forward_mesh_info for group in groups]
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.reshard()
            for group, mesh in zip(groups, meshes, strict=True):
                group.post_forward_mesh_info = mesh
