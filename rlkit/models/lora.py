"""LoRA adapters of a model, with the package peft: added, saved, switched, merged."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlkit.config.run import LoraConfig
from rlkit.errors import UserError
from rlkit.interfaces import State

OUTPUT = "lora_B"
"""The half of an adapter that starts at zero, so that the adapter adds nothing at first."""


def peft() -> Any:
    """The package. Raises UserError if it is not installed."""
    try:
        import peft as package
    except ImportError as error:
        raise UserError(
            "model.lora needs the package peft: pip install 'rlkit-rft[lora]'"
        ) from error
    return package


def has_adapter(model: Any) -> bool:
    """Whether a model has adapters."""
    return hasattr(model, "peft_config") and hasattr(model, "disable_adapter")


def add_adapter(model: Any, config: LoraConfig) -> Any:
    """The model with new adapters; only they are trained.

    Their random half is drawn from torch's generator.
    """
    targets = config.target_modules
    settings = peft().LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    try:
        return peft().get_peft_model(model, settings)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules={targets}: {error}") from error


def load_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapters of a checkpoint, to continue training."""
    return peft().PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def parameters(model: Any) -> dict[str, Tensor]:
    """The adapters' parameters by name."""
    return {name: p for name, p in model.named_parameters() if "lora_" in name}


def adapter_weights(model: Any) -> State:
    """A copy of the adapters' weights by name."""
    return {name: p.detach().clone() for name, p in parameters(model).items()}


def is_off(weights: State) -> bool:
    """Whether adapters with these weights add nothing to the model."""
    added = [value.any() for name, value in weights.items() if OUTPUT in name]
    return not torch.stack(added).any() if added else True


@contextmanager
def with_adapter(model: Any, weights: State | None) -> Generator[None]:
    """Gives the model other adapters inside this context; None = no adapters."""
    if weights is None:
        with model.disable_adapter():
            yield
        return
    own = adapter_weights(model)
    put(model, weights)
    try:
        yield
    finally:
        put(model, own)


@torch.no_grad()
def put(model: Any, weights: State) -> None:
    """Write weights into the model's adapters."""
    for name, parameter in parameters(model).items():
        parameter.copy_(weights[name])


def merged(model: Any) -> dict[str, Tensor]:
    """The full weights of the equivalent plain model: each layer with its adapter merged."""
    model.merge_adapter()
    try:
        return {
            name.replace("base_layer.", ""): value.detach().clone()
            for name, value in model.get_base_model().state_dict().items()
            if "lora_" not in name
        }
    finally:
        model.unmerge_adapter()


def plain_model(model: Any, weights: Mapping[str, Tensor]) -> Any:
    """An ordinary model of the same architecture with these weights, which can be saved.

    Buffers that no checkpoint holds (rotary frequencies) stay in float32, as in a loaded model.
    """
    original = next(c for c in type(model).__mro__ if not c.__name__.startswith("FSDP"))
    with torch.random.fork_rng(devices=[]):
        plain = original(model.config)
    for parameter in plain.parameters():
        parameter.data = parameter.data.to(model.dtype)
    plain.load_state_dict(weights)
    plain.generation_config = model.generation_config
    vars(plain.config).pop("quantization_config", None)
    return plain


def save_merged(model: Any, folder: Path) -> None:
    """Write the equivalent plain model as a `save_pretrained` folder."""
    plain_model(model.get_base_model(), merged(model)).save_pretrained(folder)
