"""A run whose weights are sharded over processes: `python -m tests.sharded_run <overrides>`.

accelerate's FSDP wants GPUs; here torch's own, on the CPU, shards the weights as it would.
"""

from __future__ import annotations

import sys
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rlkit.composition.config_files import configs_folder
from rlkit.composition.execute import execute
from rlkit.composition.guard import guarded
from rlkit.composition.hydra_groups import import_before_compose
from rlkit.distributed.fsdp import FSDP
from rlkit.distributed.launch import close_processes


class Sharded(FSDP):
    """FSDP2 without accelerate's configuration."""

    def wrap(self, module: nn.Module) -> nn.Module:
        mesh = init_device_mesh("cpu", (self.world_size,))
        layers: Any = module.model.layers  # type: ignore[union-attr]
        for part in (*layers, module):
            fully_shard(part, mesh=mesh)
        return module


def train() -> None:
    processes = Sharded(cpu=True)
    overrides = import_before_compose(sys.argv[1:])
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        raw: Any = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
    execute(raw, overrides, processes=processes)
    close_processes()


def main() -> int:
    return guarded(train)


if __name__ == "__main__":
    sys.exit(main())
