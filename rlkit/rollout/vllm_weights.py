"""The policy as vLLM loads it: a plain model's config and weights, named as in a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rlkit.adapter import has_adapter, merged
from rlkit.policy import Policy


def write_config(policy: Policy, folder: str) -> None:
    """Write the model's config and the tokenizer.

    A policy's weights are never quantised, though a config that came from a quantised file says so.
    """
    model: Any = policy.model
    plain = model.get_base_model() if has_adapter(model) else model
    config = copy.deepcopy(plain.config)
    config.architectures = [type(plain).__name__]
    vars(config).pop("quantization_config", None)
    config.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)


def write_weights(policy: Policy, folder: str) -> None:
    """Write the weights, as one file."""
    weights = {name: tensor.contiguous() for name, tensor in checkpoint_weights(policy)}
    save_file(weights, Path(folder, "model.safetensors"), metadata={"format": "pt"})


def checkpoint_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors in the order of the layers; tied ones once, adapters added in."""
    model: Any = policy.model
    adapted = has_adapter(model)
    state = model.get_base_model().state_dict() if adapted else model.state_dict()
    first = {tensor.data_ptr(): name for name, tensor in reversed(state.items())}
    untied = {name.replace("base_layer.", "") for name in first.values()}
    for name, tensor in (merged(model) if adapted else state).items():
        if name in untied:
            yield name, tensor
