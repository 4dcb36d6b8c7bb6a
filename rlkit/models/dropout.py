"""Dropout in updates, if it is asked for: of the adapters, or the model's own.

Samples, log-probs, references and the critic never see dropout. An update with dropout takes the
value of each log-prob from the policy without it, and the gradient from the network with it:

    logp = logp_without + (logp_with - stop_gradient(logp_with))   entropy and head likewise

So ratios, clips and KLs compare one policy with another and not two masks: on fresh data the first
pass has ratio 1. If the loss is linear in logp, its gradient is that of ordinary dropout. It costs
a second forward without gradient. TRL switches dropout off by default (`disable_dropout`); if it is
on there, the old log-probs and the new ones have masks of their own. Status: our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from rlkit.batch import PolicyTerms
from rlkit.models.recompute import in_training


def dropped_modules(model: nn.Module, *, own: bool) -> tuple[nn.Module, ...]:
    """The modules that are in training mode in an update.

    All of them if the model's own dropout is asked for, else the adapters' dropouts.
    """
    if own:
        return tuple(model.modules())
    return tuple(
        module
        for name, module in model.named_modules()
        if "lora_dropout" in name and isinstance(module, nn.Dropout)
    )


@dataclass(frozen=True)
class Dropout:
    """Which modules drop in updates; none by default."""

    modules: Sequence[nn.Module] = ()

    @contextmanager
    def drawn(self, seed: int, device: torch.device) -> Generator[None]:
        """Has the modules drop inside this context, by masks that the seed decides.

        torch's generators are as before afterwards.
        """
        on_gpu = device.type == "cuda"
        with torch.random.fork_rng([device] if on_gpu else []), in_training(self.modules):
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            yield

    def terms(
        self, forward: Callable[[], PolicyTerms], seed: int, device: torch.device
    ) -> PolicyTerms:
        """A forward's terms: their values without dropout, their gradient with it."""
        if not self.modules or not torch.is_grad_enabled():
            return forward()
        with torch.no_grad():
            value = forward()
        with self.drawn(seed, device):
            dropped = forward()
        return PolicyTerms(
            logp=value.logp + (dropped.logp - dropped.logp.detach()),
            entropy=value.entropy + (dropped.entropy - dropped.entropy.detach()),
            head=value.head + (dropped.head - dropped.head.detach()),
        )


NO_DROPOUT = Dropout()
