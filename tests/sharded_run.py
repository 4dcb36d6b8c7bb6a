"""A run whose weights are sharded over processes: `python -m tests.sharded_run <overrides>`.

accelerate's FSDP wants GPUs; here its own function shards the weights on the CPU.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, cast

from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from rlkit.composition.config_files import configs_folder
from rlkit.composition.execute import execute
from rlkit.composition.guard import guarded
from rlkit.composition.hydra_groups import import_before_compose
from rlkit.distributed.fsdp import FSDP
from rlkit.distributed.launch import close_processes


class Sharded(FSDP):
    """FSDP2 on the CPU, as configs/accelerate/fsdp2.yaml has it."""

    def wrap(self, module: nn.Module) -> nn.Module:
        return sharded(module, self.world_size)


def sharded(module: nn.Module, world_size: int) -> nn.Module:
    """The module as accelerate shards it, over CPU processes of an open process group."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        cpu_ram_efficient_loading=False,
    )
    dims = ("shard",)
    stand_in = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        torch_device_mesh=init_device_mesh("cpu", (world_size,), mesh_dim_names=dims),
        parallelism_config=SimpleNamespace(fsdp_dim_names=dims),
        mixed_precision="no",
        is_main_process=True,
    )
    return cast("nn.Module", fsdp2_prepare_model(stand_in, module))


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
