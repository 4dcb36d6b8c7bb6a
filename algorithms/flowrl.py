"""FlowRL: match the distribution of rewards, with a learned partition function (arXiv:2509.15207).

The policy that is best under a KL penalty is p*(y|x) = ref(y|x) exp(beta A) / Z(x), which keeps
every good answer and not only the best. FlowRL makes the log of both sides equal, per token so that
long responses do not dominate, and learns log Z beside the policy from the prompt:

    L = w (log Z(x) + mean log pi - beta A - mean log ref)^2,   w = min(sg prod pi / prox, 10)
    log Z(x) = three layers on the mean of the policy's last hidden states over the prompt

Every response stands alone: unlike tba, no group estimates log Z. The gradient of log Z goes on
into the policy. Status: adapted in the head, which has no dropout (the authors': 0.1), and in the
clip of its gradient, which has a norm of its own.

Public code: Xuekai-Zhu/FlowRL and verl's recipe have beta 15, w at most 10, the head among the
policy's weights with their learning rate, A normalized by the group (advantage=group_norm). Their
slice of the prompt leaves out its last token, and they clamp no log-ratio (log_ratio_clamp=null).
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import Aggregation, masked_log_ratio, sequence_advantage, sequence_mean
from rlkit.registry import register


class FlowrlConfig(RatioConfig):
    """Settings of FlowRL."""

    aggregation: Aggregation = "seq-mean-token-mean"
    beta: Annotated[float, Field(gt=0)] = 15.0
    """How sharply the target distribution prefers higher advantages."""
    ratio_max: Annotated[float, Field(gt=0)] = 10.0
    """Most that a response weighs by its ratio."""
    layers: Annotated[int, Field(ge=1)] = 3
    """Linear layers of log Z, all but the last as wide as the model."""


def flow_imbalance(log_z: Tensor, moved: Tensor, advantage: Tensor, beta: float) -> Tensor:
    """log Z + mean log(pi / ref) - beta A, [B]; `moved` is that mean."""
    return log_z + moved - beta * advantage


def partition(width: int, layers: int) -> nn.Module:
    """log Z of mean hidden states [n, width], [n, 1]."""
    inner: list[nn.Module] = []
    for _ in range(layers - 1):
        inner += [nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)]
    return nn.Sequential(*inner, nn.Linear(width, 1))


@register("loss", "flowrl")
class FlowRL(RatioLoss[FlowrlConfig]):
    """L = min(sg prod r, 10) (log Z(x) + mean log(pi / ref) - beta A)^2, one value per response."""

    sources = ("2509.15207",)

    def __init__(self, config: FlowrlConfig | None = None) -> None:
        super().__init__(config)
        self.needs = self.needs | {"anchor:base", "prompt_hidden"}

    def modules(self, width: int) -> nn.Module:
        """log Z."""
        return partition(width, self.config.layers)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One value per response."""
        c, mask = self.config, batch.mask
        moved = masked_log_ratio(policy.logp, batch.anchor_logp["base"], mask, c.log_ratio_clamp)
        advantage = sequence_advantage(batch.advantage, mask)
        error = flow_imbalance(policy.head, sequence_mean(moved, mask), advantage, c.beta)
        drift = masked_log_ratio(policy.logp.detach(), self.other(batch), mask)
        weight = drift.sum(-1).clamp(max=math.log(c.ratio_max)).exp()
        ratio = self.ratio(policy.logp, self.other(batch), mask)
        value = weight * error.square()
        return policy_output(value, mask, ratio=ratio, weight=weight, log_z=policy.head)
