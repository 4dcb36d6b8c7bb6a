"""LoRA adapters of a model, with the package peft: added, saved, switched, merged."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlkit.config.run import LoraConfig
from rlkit.distributed.processes import own_weights
from rlkit.errors import UserError
from rlkit.interfaces import State
from rlkit.models.generation import mend_generation_config

OUTPUT = "lora_B"
"""The half of an adapter that starts at zero, so that the adapter adds nothing at first."""


def require_peft() -> None:
    """Raise UserError if peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise UserError("model.lora needs the package peft: pip install peft")


def peft() -> Any:
    """The package. Raises UserError if it is not installed."""
    require_peft()
    return importlib.import_module("peft")


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
    with warnings.catch_warnings():  # of tied weights, which are refused below
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        try:
            adapted = peft().get_peft_model(model, settings)
        except ValueError as error:
            raise UserError(f"model.lora.target_modules={targets}: {error}") from error
    _check_untied(adapted, targets)
    return adapted


def _check_untied(model: Any, targets: str | tuple[str, ...]) -> None:
    """Check that no weights with an adapter are also another layer's: they cannot be merged."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.get_base_model().named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name.removesuffix(".weight"))
    for shared in names.values():
        adapted = [name for name in shared if name.endswith(".base_layer")]
        if adapted and len(shared) > 1:
            layers = " and ".join(name.removesuffix(".base_layer") for name in shared)
            raise UserError(
                f"model.lora.target_modules={targets}: the weights of {layers} are tied, and an "
                "adapter on one of them cannot be merged; leave them out"
            )


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


def merged(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and full weights of the equivalent plain model, in the order of its layers.

    A layer with an adapter is copied and peft merges the copy, so that the frozen weights stay what
    they are to the bit and no more than one layer is held twice at a time. Adding an adapter in
    place and subtracting it again would round the frozen weights at every call.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    yield from _merged(model.get_base_model(), "", BaseTunerLayer)


@torch.no_grad()
def _merged_copy(layer: Any, adapted: type[Any]) -> Any:
    """The plain layer that a layer with adapters is equivalent to."""
    copied = copy.deepcopy(layer)
    for part in copied.modules():
        if isinstance(part, adapted):
            part.merge()
    return copied.get_base_layer()


@torch.no_grad()
def without_adapters(module: nn.Module) -> Any:
    """A copy of a part of a model whose adapters are merged into the layers that have them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    copied = copy.deepcopy(module)
    for name, part in list(copied.named_modules()):
        if isinstance(part, BaseTunerLayer):
            part.merge()
            above, _, own = name.rpartition(".")
            setattr(copied.get_submodule(above), own, part.get_base_layer())
    return copied


def _merged(module: Any, prefix: str, adapted: type[Any]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(module, adapted):
        module = _merged_copy(module, adapted)
    for name, tensor in own_weights(module):
        yield prefix + name, tensor
    for name, child in module.named_children():
        yield from _merged(child, f"{prefix}{name}.", adapted)


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
    mend_generation_config(model)
    plain_model(model.get_base_model(), dict(merged(model))).save_pretrained(folder)
