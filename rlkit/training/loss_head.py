"""The module that a loss trains beside the policy: its optimizer, its gradient over the ranks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from rlkit.config.run import TrainConfig
from rlkit.distributed.learner import Backprop, Learner
from rlkit.errors import UserError
from rlkit.interfaces import PolicyLoss, State
from rlkit.models.policy import Policy
from rlkit.models.prompt_head import width_of
from rlkit.ops import stream_seed
from rlkit.training.optimizers import make_optimizer, set_rate

HIDDEN = "prompt_hidden"
"""What a loss with a module of its own needs."""
PREFIX = "loss"
"""How the names of its weights begin in train.lr_scale, and its metrics."""


def made(loss: PolicyLoss[Any], policy: Policy, seed: int) -> nn.Module | None:
    """A loss's module on the policy's device, the same on every rank; None if it has none.

    Raises UserError if the loss needs what only a module could read, and has none.
    """
    if HIDDEN not in loss.needs:
        return None
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(stream_seed(seed, "loss_module"))
        module = loss.modules(width_of(policy.model))
    if module is None:
        raise UserError(
            f"loss {type(loss).__name__} needs '{HIDDEN}', but its modules() gives no module to "
            "read it; return one, or leave the need out"
        )
    return module.to(device=policy.device, dtype=torch.float32)


class LossHead:
    """A loss's own module with its optimizer; without a module, each method does nothing.

    Every rank holds the whole module and the gradient of its own rows, which is summed over the
    ranks before a step. It is clipped apart from the policy's.
    """

    def __init__(
        self, loss: PolicyLoss[Any], policy: Policy, train: TrainConfig, seed: int
    ) -> None:
        self.module, self.processes = made(loss, policy, seed), policy.processes
        self.learner: Learner | None = None
        self.norms: list[float] = []
        self.reset(train)

    def reset(self, train: TrainConfig) -> None:
        """A fresh optimizer: no moments."""
        if self.module is not None:
            optimizer = make_optimizer(PREFIX, self.module, train)
            self.learner = Learner(self.module, self.module, optimizer, self.learner)

    def beside(self, policy: Learner) -> Backprop:
        """How a loss on the policy and the module is back-propagated."""
        return policy if self.learner is None else Beside(policy, self.learner)

    @torch.no_grad()
    def clip(self, max_norm: float, scale: int) -> float:
        """Sum the gradient over the ranks and clip it; returns its norm before that, or 0.

        `scale` is what the backward pass multiplied it by. Every rank must call it.
        """
        if self.learner is None:
            return 0.0
        weights = list(self.learner.module.parameters())
        flat = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        total = self.processes.all_reduce(torch.cat([g.flatten() for g in flat]) / scale)
        parts = torch.split(total, [w.numel() for w in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.view_as(weight).clone()
        self.norms.append(self.learner.clip(max_norm))
        return self.norms[-1]

    def step(self) -> None:
        """One optimizer step, inside that of the policy."""
        if self.learner is not None:
            self.learner.step()

    def set_rate(self, rate: float) -> dict[str, float]:
        """Set the learning rate; returns what is logged of it."""
        if self.learner is None:
            return {}
        return {f"{PREFIX}/lr": rate, **set_rate(PREFIX, self.learner, rate)}

    def metrics(self) -> dict[str, float]:
        """The mean norm of the gradients since the last call."""
        norms, self.norms = self.norms, []
        return {f"{PREFIX}/grad_norm": sum(norms) / len(norms)} if norms else {}

    def state_dict(self) -> State:
        """The module's weights and its optimizer."""
        if self.learner is None:
            return {}
        weights = dict(self.learner.module.state_dict())
        return {"loss_module": weights, "loss_optimizer": self.learner.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned. Raises UserError if it is of another module."""
        if self.learner is None:
            return
        own, saved = shapes(self.learner.module.state_dict()), shapes(state.get("loss_module", {}))
        if own != saved:
            raise UserError(
                "this checkpoint "
                + ("has other weights than" if saved else "does not have the weights of")
                + " the loss's own module: go on with the loss it was trained with and its "
                "settings, or start a new run from it, with model.name=<checkpoint>"
            )
        self.learner.module.load_state_dict(state["loss_module"])
        self.learner.load_state_dict(state["loss_optimizer"])


def shapes(weights: State) -> dict[str, torch.Size]:
    """The shape of each weight, by name."""
    return {name: weight.shape for name, weight in weights.items()}


class Beside(Backprop):
    """The policy's back-propagation, through which the module's weights get their gradient too."""

    def __init__(self, policy: Learner, head: Learner) -> None:
        self.policy, self.head = policy, head

    @property
    def scale(self) -> int:
        """What `backward` multiplies by."""
        return self.policy.scale

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Context of a micro-batch's forward and backward; `last` = the last one of a minibatch."""
        return self.policy.accumulate(last=last)

    def backward(self, value: Tensor) -> None:
        """Back-propagate this rank's part of a loss that is the sum over the ranks."""
        self.policy.backward(value)

    def zero_grad(self) -> None:
        """Clear both gradients."""
        self.policy.zero_grad()
        self.head.zero_grad()
