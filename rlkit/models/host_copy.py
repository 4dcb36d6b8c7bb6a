"""A frozen copy of a model in host memory, whose layers visit the device for a forward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def copy_to(model: M, device: torch.device) -> M:
    """A frozen copy on another device, without one on the model's own; tied weights stay tied."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        moved = tensor.detach().to(device, copy=True)
        is_weight = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(moved, requires_grad=False) if is_weight else moved
    return copy.deepcopy(model, memo)


def visit(model: nn.Module, device: torch.device) -> None:
    """Have the model compute on a device: what it holds is there while it is used, and no longer.

    A layer at a time: each decoder layer as a whole, other modules by themselves.
    """
    for unit in units(model):
        home: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
        unit.register_forward_pre_hook(partial(_bring, home, device))
        unit.register_forward_hook(partial(_leave, home), always_call=True)


def units(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost decoder layers, and the modules outside them that hold tensors themselves."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    if isinstance(model, GradientCheckpointingLayer):
        yield model
        return
    if any(stores(model)):
        yield model
    for child in model.children():
        yield from units(child)


def stores(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a module keeps its own parameters and buffers, by name."""
    return vars(module)["_parameters"], vars(module)["_buffers"]


def _bring(home: list[Any], device: torch.device, unit: nn.Module, _: Any) -> None:
    """Put copies on the device in the place of a unit's tensors, and note those."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    modules = unit.modules() if isinstance(unit, GradientCheckpointingLayer) else [unit]
    for store in (store for module in modules for store in stores(module)):
        for name, tensor in store.items():
            if tensor is not None:
                home.append((store, name, tensor))
                store[name] = _like(tensor)(tensor.detach().to(device))


def _leave(home: list[Any], *_: Any) -> None:
    """Put a unit's own tensors back."""
    for store, name, tensor in home:
        store[name] = tensor
    home.clear()


def _like(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    """What makes a tensor a parameter, if this one is."""
    is_weight = isinstance(tensor, nn.Parameter)
    return partial(nn.Parameter, requires_grad=False) if is_weight else lambda moved: moved
