"""The attention function that a model of transformers looks up, and another one in its place."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import nn


def implementations(model: nn.Module) -> set[str | None]:
    """The attention functions that a model's modules use."""
    return {config._attn_implementation for config in configs_of(model)}


def configs_of(model: nn.Module) -> list[Any]:
    """The configurations that a model's modules read."""
    found: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation_internal"):
            found[id(config)] = config
    return list(found.values())


@contextmanager
def attending_by(model: nn.Module, name: str, function: Callable[..., Any]) -> Generator[None]:
    """Has a model's modules call a function for attention inside this context.

    Its name is in none of transformers' mask functions, so that no mask is made.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(name, function)
    configs = configs_of(model)
    # the field itself: the property's setter would change parts with functions of their own
    before = [config._attn_implementation_internal for config in configs]
    for config in configs:
        config._attn_implementation_internal = name
    try:
        yield
    finally:
        for config, own in zip(configs, before, strict=True):
            config._attn_implementation_internal = own
