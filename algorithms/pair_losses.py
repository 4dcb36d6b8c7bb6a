"""Losses on a pair of responses, as functions of their log-ratios to a reference.

Shapes: [B], one entry per response, which is that of the pair it belongs to. w is log(pi /
reference) of the chosen response, l that of the rejected one, h = w - l the margin; sums over
tokens, or means over them if the loss normalizes by length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlkit.ops import group_sum

PairType = Literal[
    "sigmoid",
    "sigmoid_norm",
    "robust",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "anchored",
]
"""The losses of TRL's DPOTrainer, by its names, and a further one."""
SMOOTHED = frozenset({"sigmoid", "sigmoid_norm", "robust", "exo_pair", "aot", "aot_unpaired"})
"""Those that read the share of flipped labels."""
SORTED = frozenset({"aot", "aot_unpaired"})
"""Those that compare the pairs of a whole minibatch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The pair that each row belongs to, [B] each; 0 for rows of none."""

    w: Tensor
    """log(pi / reference) of the chosen response."""
    l: Tensor  # noqa: E741 - as the formulas have it
    """log(pi / reference) of the rejected response."""
    policy: Tensor
    """log pi(chosen) - log pi(rejected)."""
    reference: Tensor
    """The same under the reference."""
    at: Tensor
    """[B] bool, the chosen response of each pair."""
    group: Tensor
    """[B] int64"""

    @property
    def h(self) -> Tensor:
        """The margin."""
        return self.w - self.l


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers that the losses read besides the log-ratios."""

    beta: float
    smoothing: float = 0.0
    """Share of the labels that are taken to be wrong."""
    tau: float = 0.05
    """Temperature of discopop's blend."""


def cross_entropy(x: Tensor, p: float | Tensor) -> Tensor:
    """-p log sigmoid(x) - (1 - p) log sigmoid(-x)."""
    return -p * logsigmoid(x) - (1 - p) * logsigmoid(-x)


def sigmoid(pair: Pair, c: Shape) -> Tensor:
    """DPO (arXiv:2305.18290); with smoothing, conservative DPO."""
    return cross_entropy(c.beta * pair.h, 1 - c.smoothing)


def robust(pair: Pair, c: Shape) -> Tensor:
    """Robust DPO (arXiv:2403.00409): unbiased under labels flipped with a known probability."""
    x, e = c.beta * pair.h, c.smoothing
    return (e * logsigmoid(-x) - (1 - e) * logsigmoid(x)) / (1 - 2 * e)


def hinge(pair: Pair, c: Shape) -> Tensor:
    """SLiC's hinge (arXiv:2305.10425) in its normalized form (arXiv:2309.06657)."""
    return (1 - c.beta * pair.h).clamp(min=0)


def ipo(pair: Pair, c: Shape) -> Tensor:
    """IPO (arXiv:2310.12036, Eq. 17), whose tau is beta."""
    return (pair.h - 1 / (2 * c.beta)).square()


def exo_pair(pair: Pair, c: Shape) -> Tensor:
    """EXO (arXiv:2402.00856, Eq. 16): KL from the policy's preference to the smoothed label's."""
    x, e = c.beta * pair.h, c.smoothing
    better, worse = logsigmoid(x), logsigmoid(-x)
    return better.exp() * (better - math.log1p(-e)) + worse.exp() * (worse - math.log(e))


def nca_pair(pair: Pair, c: Shape) -> Tensor:
    """NCA (arXiv:2402.05369) on a pair."""
    w, l = c.beta * pair.w, c.beta * pair.l  # noqa: E741
    return -logsigmoid(w) - (logsigmoid(-w) + logsigmoid(-l)) / 2


def bco_pair(pair: Pair, c: Shape) -> Tensor:
    """BCO (arXiv:2404.04656) on a pair, without its shift of the reward."""
    return -logsigmoid(c.beta * pair.w) - logsigmoid(-c.beta * pair.l)


def sppo_hard(pair: Pair, c: Shape) -> Tensor:
    """SPPO (arXiv:2405.00675, Eq. 4.7) where the chosen response always wins."""
    aim = 1 / (2 * c.beta)
    return (pair.w - aim).square() + (pair.l + aim).square()


def ranked(first: Tensor, second: Tensor, pair: Pair, c: Shape) -> Tensor:
    """The loss where k-th smallest is compared with k-th smallest, over all pairs.

    Which pair carries a term does not matter to their mean: they are handed out in order.
    """
    count = torch.arange(len(pair.at), device=pair.at.device) < pair.at.sum()
    ordered = [
        torch.where(count, torch.where(pair.at, x, torch.inf).sort(stable=True).values, 0.0)
        for x in (first, second)
    ]
    terms = cross_entropy(c.beta * (ordered[0] - ordered[1]), 1 - c.smoothing)
    place = (pair.at.long().cumsum(0) - 1).clamp(min=0)
    return group_sum(torch.where(pair.at, terms[place], 0.0), pair.group)


def aot(pair: Pair, c: Shape) -> Tensor:
    """AOT (arXiv:2406.05882), paired: the margins are ranked, the policy's and the reference's."""
    return ranked(pair.policy, pair.reference, pair, c)


def aot_unpaired(pair: Pair, c: Shape) -> Tensor:
    """AOT, unpaired: the log-ratios are ranked, the chosen responses' and the rejected ones'."""
    return ranked(pair.w, pair.l, pair, c)


def apo_zero(pair: Pair, c: Shape) -> Tensor:
    """Anchored preference (arXiv:2408.06266, Eq. 7): the chosen one up, the rejected one down."""
    return (-c.beta * pair.w).sigmoid() + (c.beta * pair.l).sigmoid()


def apo_down(pair: Pair, c: Shape) -> Tensor:
    """Anchored preference (arXiv:2408.06266, Eq. 8): both down, the rejected one further."""
    return (c.beta * pair.w).sigmoid() + (-c.beta * pair.h).sigmoid()


def discopop(pair: Pair, c: Shape) -> Tensor:
    """DiscoPOP (arXiv:2406.08414, Eq. 5): logistic loss where h < 0, exponential where h > 0."""
    x = c.beta * pair.h
    blend = x / c.tau
    exponential = (logsigmoid(blend) - x).exp()  # sigmoid(blend) exp(-x), which cannot overflow
    return exponential - (-blend).sigmoid() * logsigmoid(x)


def anchored(pair: Pair, c: Shape) -> Tensor:
    """mDPO's anchor (arXiv:2406.11839): the chosen response stays as likely as in the reference."""
    return -logsigmoid(c.beta * pair.w)


PAIR_LOSSES: Mapping[str, Callable[[Pair, Shape], Tensor]] = {
    "sigmoid": sigmoid,
    "sigmoid_norm": sigmoid,
    "robust": robust,
    "hinge": hinge,
    "ipo": ipo,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "bco_pair": bco_pair,
    "sppo_hard": sppo_hard,
    "aot": aot,
    "aot_unpaired": aot_unpaired,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "anchored": anchored,
}
"""All but `sft`, which is no function of the log-ratios."""
