"""The policy for others to load: a plain model's config and weights, named as in a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rlkit.distributed.processes import named_weights
from rlkit.models.lora import has_adapter, merged
from rlkit.models.policy import Policy


def write_config(policy: Policy, folder: str | Path) -> None:
    """Write the model's config and the tokenizer; any rank may call it.

    A policy's weights are never quantized, though a config that came from a quantized file says so.
    """
    model: Any = policy.model
    plain = model.get_base_model() if has_adapter(model) else model
    config = copy.deepcopy(plain.config)
    config.architectures = [type(plain).__name__.removeprefix("FSDP")]
    vars(config).pop("quantization_config", None)
    config.save_pretrained(folder)
    plain.generation_config.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)


def write_weights(policy: Policy, folder: str | Path) -> dict[str, Tensor]:
    """Write the weights into a model's folder, as one file; returns them."""
    return save_weights(policy, Path(folder, "model.safetensors"))


def save_weights(policy: Policy, path: Path) -> dict[str, Tensor]:
    """Write the weights as a safetensors file; returns them.

    Layers with adapters are copies and wait for the file in host memory.
    """
    host = "cpu" if has_adapter(policy.model) else None
    weights = {name: tensor.to(host).contiguous() for name, tensor in checkpoint_weights(policy)}
    save_file(weights, path, metadata={"format": "pt"})
    return weights


def checkpoint_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors in the order of the layers; tied ones once, adapters added in."""
    model: Any = policy.model
    adapted = has_adapter(model)
    state = named_weights(model.get_base_model() if adapted else model)
    first = {tensor.data_ptr(): name for name, tensor in reversed(state.items())}
    untied = {name.replace("base_layer.", "") for name in first.values()}
    for name, tensor in merged(model) if adapted else state.items():
        if name in untied:
            yield name, tensor
