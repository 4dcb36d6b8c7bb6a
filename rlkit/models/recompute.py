"""Gradient checkpointing: activations inside a layer are computed again in the backward pass.

transformers does so in training mode only, which switches on every dropout. Here it is a property
of the layers instead, in whatever mode they are, so that it never changes a number.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rlkit.errors import UserError
from rlkit.models.shared_prefix import ACTIVE


@contextmanager
def in_training(modules: Iterable[nn.Module]) -> Generator[None]:
    """Has these modules, and not those inside them, in training mode inside this context."""
    modules = list(modules)
    before = [module.training for module in modules]
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Has a model, with all inside it, out of training mode inside this context."""
    before = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(before)


def checkpoint_layers(model: nn.Module, *, on: bool) -> None:
    """Have the layers of a model of transformers keep only their inputs for the backward pass.

    Not if `on` is false. Raises UserError for a model without such layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    own: Any = model
    if getattr(own, "is_gradient_checkpointing", False):
        own.gradient_checkpointing_disable()
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    for layer in layers:
        vars(layer).pop("forward", None) if is_checkpointed(layer) else None
        if on:
            vars(layer)["forward"] = partial(_forward, layer, layer.forward)
    if on and not layers:
        raise UserError(
            f"model.gradient_checkpointing=true, but {type(model).__name__} has no layers that "
            "can be checkpointed; set it to false"
        )


def is_checkpointed(layer: nn.Module) -> bool:
    """Whether `checkpoint_layers` has changed a layer."""
    forward = vars(layer).get("forward")
    return isinstance(forward, partial) and forward.func is _forward


def _forward(layer: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A layer's forward; with gradients, one that is computed again in the backward pass.

    The second time it draws the same dropout masks, with the same modules in training mode, and
    attends over the same packed row.
    """
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    training = [module for module in layer.modules() if module.training]
    attention = ACTIVE.get() or nullcontext

    def again(*args: Any, **kwargs: Any) -> Any:
        with in_training(training), attention():
            return forward(*args, **kwargs)

    return checkpoint(again, *args, use_reentrant=False, **kwargs)
