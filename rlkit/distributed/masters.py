"""Float32 copies of half-precision weights, which the optimizer updates in their place.

A bfloat16 number has 8 significant bits: near 1 its neighbors are 0.8 % away, so adding an update
of a millionth changes nothing, and neither does a second moment's `v * 0.999`. Mixed precision
training (arXiv:1710.03740) therefore keeps a master of each weight in float32:

    gradient of the master += gradient of the weight, after each micro-batch
    master -= update        by the optimizer, whose moments are float32 too
    weight = master         rounded
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlkit.interfaces import State


def needs_master(parameter: Tensor) -> bool:
    """Whether a weight is trained and too coarse to add small updates to."""
    return parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16)


class Masters:
    """The masters of a module's half-precision weights; none if all are float32."""

    def __init__(
        self, module: nn.Module, optimizer: Optimizer, before: Masters | None = None
    ) -> None:
        """Point the optimizer, which has taken no step yet, at the masters.

        They go on from those `before`, which must not be used afterwards.
        """
        self.weights = list(module.parameters())
        known = before.release() if before is not None else {}
        self.of: dict[Tensor, Tensor] = {
            weight: known[weight] if weight in known else weight.detach().float()
            for weight in self.weights
            if needs_master(weight)
        }
        for group in optimizer.param_groups:
            group["params"] = [self.of.get(weight, weight) for weight in group["params"]]
        coarse: Any = list(self.of)
        self.hooks = [weight.register_post_accumulate_grad_hook(self._collect) for weight in coarse]

    def __len__(self) -> int:
        return len(self.of)

    @property
    def trained(self) -> Sequence[Tensor]:
        """What the optimizer updates for each weight, in the module's order."""
        return [self.of.get(weight, weight) for weight in self.weights]

    def release(self) -> dict[Tensor, Tensor]:
        """Stop collecting gradients; returns the masters by their weights."""
        for hook in self.hooks:
            hook.remove()
        return self.of

    @torch.no_grad()
    def _collect(self, weight: Tensor) -> None:
        """Add a weight's gradient to its master's, in float32, and free it.

        The weight has let go of it before anything is allocated: if memory runs out here, the
        backward that is tried again finds none to add to.
        """
        master: Any = self.of[weight]
        gradient, weight.grad = weight.grad, None
        if gradient is None:
            return
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad += gradient

    @torch.no_grad()
    def write(self) -> None:
        """Round the masters into the weights."""
        for weight, master in self.of.items():
            weight.copy_(master)

    def state_dict(self) -> State:
        """The masters by the weights' places in `module.parameters()`."""
        return {str(n): self.of[w] for n, w in enumerate(self.weights) if w in self.of}

    @torch.no_grad()
    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned; a master it lacks starts at its weight."""
        for number, weight in enumerate(self.weights):
            if weight in self.of:
                self.of[weight].copy_(state.get(str(number), weight))
        self.write()
