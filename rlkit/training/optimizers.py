"""The optimizers of the policy and the critic: which, over which groups of weights, at which rates.

Weights are grouped by what differs among them: whether they decay, the factor of their learning
rate, and under muon which of its two optimizers they are for. One group if nothing differs.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlkit.config.run import TrainConfig
from rlkit.distributed.learner import Learner
from rlkit.errors import UserError
from rlkit.interfaces import State

UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Names of the weights that transformers' Trainer does not decay."""
SCALE, PATTERN = "lr_scale", "lr_pattern"
"""Keys of a group whose learning rate has a factor."""


def decays(module: nn.Module) -> set[str]:
    """Names of the weights that weight decay shrinks, as transformers' Trainer chooses them.

    Not biases and norms, by name or as part of an `nn.LayerNorm`; nor any other vector or scalar.
    """
    norms = tuple(f"{n}." for n, m in module.named_modules() if isinstance(m, nn.LayerNorm))
    return {
        name
        for name, weight in module.named_parameters()
        if weight.dim() > 1
        and not UNDECAYED.search(name.lower())
        and not (norms and name.startswith(norms))
    }


def hidden_matrices(module: nn.Module) -> set[str]:
    """Names of the weights that Muon is for: matrices, but not embeddings or an output layer.

    The output layer of a module that is no language model is its last linear one.
    """
    outer: Any = module
    linear: list[nn.Module | None] = [m for m in module.modules() if isinstance(m, nn.Linear)]
    told = hasattr(outer, "get_output_embeddings")
    outside = [outer.get_output_embeddings()] if told else linear[-1:]
    outside += [inner for inner in module.modules() if isinstance(inner, nn.Embedding)]
    left_out = {weight for layer in outside if layer for weight in layer.parameters()}
    return {
        name
        for name, weight in module.named_parameters()
        if weight.dim() == 2 and weight not in left_out
    }


def pattern_of(name: str, train: TrainConfig) -> str | None:
    """The first pattern of train.lr_scale that is found in a weight's name."""
    return next((p for p in train.lr_scale or () if re.search(p, name)), None)


def check_patterns(train: TrainConfig, modules: Mapping[str, nn.Module | None]) -> None:
    """Raise UserError for a pattern of train.lr_scale that sets no weight's rate."""
    names = [
        f"{prefix}.{name}"
        for prefix, module in modules.items()
        for name, weight in (module.named_parameters() if module is not None else ())
        if weight.requires_grad
    ]
    used = {pattern_of(name, train) for name in names}
    for pattern in train.lr_scale or ():
        if pattern not in used:
            raise UserError(
                f"train.lr_scale: the pattern '{pattern}' sets no weight's rate: it is in no "
                "trained weight's name, or an earlier pattern is in each of those that hold it; "
                f"the names are {names[0]} to {names[-1]}"
            )


def check_optimizer(train: TrainConfig) -> None:
    """Raise UserError if the optimizer's package is not installed."""
    if train.optimizer == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "train.optimizer=adamw_8bit needs the package bitsandbytes: pip install bitsandbytes, "
            "or use train.optimizer=adamw"
        )


def make_optimizer(prefix: str, module: nn.Module, train: TrainConfig) -> Optimizer:
    """The optimizer of a module; `prefix` is "policy", "critic" or "loss"."""
    if train.optimizer != "muon":
        return _one(train, groups_of(prefix, module, train))
    hidden = hidden_matrices(module)
    parts: list[Optimizer] = []
    if inside := groups_of(prefix, module, train, hidden):
        # scaled so that an update's size is AdamW's (arXiv:2502.16982)
        parts.append(torch.optim.Muon(inside, adjust_lr_fn="match_rms_adamw"))
    if rest := groups_of(prefix, module, train, dict(module.named_parameters()).keys() - hidden):
        parts.append(_one(train, rest))
    return Several(parts)


def groups_of(
    prefix: str, module: nn.Module, train: TrainConfig, chosen: set[str] | None = None
) -> list[dict[str, Any]]:
    """The groups of a module's weights, or of the `chosen` ones, in its order."""
    decayed = decays(module) if train.weight_decay > 0 else set()
    groups: dict[tuple[bool, str | None], list[Tensor]] = {}
    for name, weight in module.named_parameters():
        if chosen is None or name in chosen:
            kind = (name in decayed, pattern_of(f"{prefix}.{name}", train))
            groups.setdefault(kind, []).append(weight)
    out = []
    for (decay, pattern), weights in groups.items():
        group = {"params": weights, "weight_decay": train.weight_decay if decay else 0.0}
        if train.lr_scale and pattern is not None:
            group |= {SCALE: train.lr_scale[pattern], PATTERN: pattern}
        out.append(group)
    return out


def _one(train: TrainConfig, groups: list[dict[str, Any]]) -> Optimizer:
    """AdamW, AdamW with 8-bit moments, or Adafactor."""
    if train.optimizer == "adafactor":
        library: Any = importlib.import_module("transformers.optimization")
        # the learning rate is the configured one: not scaled by the weights, nor by the step
        options = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
        found = library.Adafactor(groups, lr=train.learning_rate, **options)
        return cast("Optimizer", found)
    betas = (train.adam_beta1, train.adam_beta2)
    if train.optimizer == "adamw_8bit":
        package: Any = importlib.import_module("bitsandbytes")
        return cast("Optimizer", package.optim.AdamW8bit(groups, betas=betas))
    # fused: one pass over each weight and its moments, with no temporary tensor, sharded or not
    return torch.optim.AdamW(groups, betas=betas, fused=True)


class Several(Optimizer):
    """Optimizers of different weights that step together."""

    def __init__(self, parts: list[Optimizer]) -> None:
        self.parts = parts
        super().__init__([dict(group) for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimizer's groups and state."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def step(self, closure: Any = None) -> Any:
        """One step of each."""
        for part in self.parts:
            part.step()
        return None

    def load_state_dict(self, state_dict: State) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._share()


def set_rate(prefix: str, learner: Learner, rate: float) -> dict[str, float]:
    """Set a learning rate, times each group's factor; returns the rates that differ, to be logged.

    `<prefix>/lr_<pattern>` is that of the weights that a pattern of train.lr_scale fits.
    """
    found = {}
    for group in learner.optimizer.param_groups:
        group["lr"] = rate * group.get(SCALE, 1.0)
        if PATTERN in group:
            found[f"{prefix}/lr_{group[PATTERN]}"] = group["lr"]
    return found
