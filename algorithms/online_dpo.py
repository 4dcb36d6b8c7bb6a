"""DPO and its relatives on the best and the worst response of each group (arXiv:2410.18252).

With `buffer=pairs` the pairs are given preferences.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from algorithms.pair_losses import PAIR_LOSSES, SMOOTHED, SORTED, Pair, PairType, Shape
from algorithms.preference import PreferenceConfig, PreferenceLoss
from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.registry import register

SFT = "sft"


class OnlineDpoConfig(PreferenceConfig):
    """Settings of losses on certain preferences."""

    loss_type: PairType | tuple[PairType, ...] = "sigmoid"
    """Which loss, by TRL's names, or several whose sum is minimized, with w and l the
    log-ratios of the chosen and the rejected response to the reference and s the logistic function:
    sigmoid -log s(beta h) (DPO, arXiv:2305.18290); sigmoid_norm the same with `length_normalize`;
    robust (arXiv:2403.00409) sigmoid without the bias of flipped labels;
    hinge max(0, 1 - beta h) (arXiv:2309.06657); ipo (h - 1 / (2 beta))^2 (arXiv:2310.12036);
    exo_pair (arXiv:2402.00856) the reverse KL to the smoothed label;
    nca_pair (arXiv:2402.05369) -log s(beta w) - log s(-beta w) / 2 - log s(-beta l) / 2;
    bco_pair (arXiv:2404.04656) -log s(beta w) - log s(-beta l);
    sppo_hard (arXiv:2405.00675) (w - 1 / (2 beta))^2 + (l + 1 / (2 beta))^2;
    aot, aot_unpaired (arXiv:2406.05882) sigmoid on ranked margins, or on ranked w and l, of the
    minibatch; apo_zero s(-beta w) + s(beta l), apo_down s(beta w) + s(-beta h) (arXiv:2408.06266);
    discopop (arXiv:2406.08414) a blend of logistic and exponential loss;
    sft the chosen response's mean of -log pi per token, for sums such as MPO's (arXiv:2411.10442);
    anchored -log s(beta w), which keeps the chosen response likely (mDPO, arXiv:2406.11839)."""
    loss_weights: tuple[float, ...] | None = None
    """The weight of each of several losses, such as MPO's [0.8,0.2,1]; null = 1 each."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share e of the labels that are taken to be wrong: sigmoid and aot become -(1 - e) log s(x) -
    e log s(-x) with x = beta h; robust is unbiased by it (0.1), exo_pair needs it (1e-3)."""
    discopop_tau: Annotated[float, Field(gt=0)] = 0.05
    """Temperature of discopop's blend."""

    @property
    def kinds(self) -> tuple[PairType, ...]:
        """Every loss of the sum."""
        return (self.loss_type,) if isinstance(self.loss_type, str) else self.loss_type

    @model_validator(mode="after")
    def _fitting(self) -> OnlineDpoConfig:
        kinds, smoothed = self.kinds, SMOOTHED.intersection(self.kinds)
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError("loss_type must name one loss, or several different ones")
        if self.loss_weights is not None and len(self.loss_weights) != len(kinds):
            raise ValueError(
                f"loss_weights has {len(self.loss_weights)} entries for {len(kinds)} losses; give "
                "one each"
            )
        if self.label_smoothing and not smoothed:
            raise ValueError(
                f"label_smoothing changes nothing in {', '.join(kinds)}; leave it out, or use one "
                f"of {', '.join(sorted(SMOOTHED))}"
            )
        if "exo_pair" in kinds and not self.label_smoothing:
            raise ValueError("exo_pair needs label_smoothing above 0, such as 1e-3")
        if "sigmoid_norm" in kinds and len({*kinds, "sft"}) > 2 and not self.length_normalize:
            raise ValueError(
                "sigmoid_norm normalizes every loss of the sum by length; set "
                "length_normalize=true and use sigmoid"
            )
        return self


@register("loss", "online_dpo")
class OnlineDPO(PreferenceLoss[OnlineDpoConfig]):
    """L = -log sigmoid(beta h), or another loss on the best-worst pair of each group.

    Rewards rank the responses; advantages are not read. With `buffer=pairs` the pairs are given
    ones, and this is DPO (arXiv:2305.18290).

    Public code: TRL's DPOTrainer gives the same loss and gradient on the same pairs for each of its
    `loss_type`, but for two: its ipo normalizes by length (`length_normalize=true`), as AReaL does,
    whereas TRL's OnlineDPO and OpenRLHF take sums; its sigmoid ignores label_smoothing, which makes
    it conservative DPO here, as in the authors' code.
    mnoukhov/async_rlhf takes the best and the worst of k. Of equal rewards TRL chooses the first
    and rejects the last, of a pair too that has no order (`equal_rewards=pair`); async_rlhf rejects
    the first of several worst ones, and a group of equal rewards has no gradient but counts in the
    mean.
    """

    sources = ("2410.18252", "2305.18290")

    def __init__(self, config: OnlineDpoConfig | None = None) -> None:
        super().__init__(config)
        if SORTED.intersection(self.config.kinds):
            self.scope = "minibatch"

    @property
    def weights(self) -> dict[str, float]:
        """The losses and their weights."""
        kinds = self.config.kinds
        return dict(zip(kinds, self.config.loss_weights or (1.0,) * len(kinds), strict=True))

    @property
    def normalizes(self) -> bool:
        """Whether log-probs are means over a response's tokens, not sums."""
        return self.config.length_normalize or "sigmoid_norm" in self.config.kinds

    def pair_loss(self, pair: Pair, target: Tensor) -> Tensor:
        """The weighted sum [B] of the losses of each row's pair."""
        c = self.config
        shape = Shape(beta=c.beta, smoothing=c.label_smoothing, tau=c.discopop_tau)
        total = torch.zeros_like(pair.w)
        for kind, weight in self.weights.items():
            if kind != SFT:
                total = total + weight * PAIR_LOSSES[kind](pair, shape)
        return total

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One term per pair, on both its rows, and the imitation of the chosen ones."""
        out = super().__call__(policy, batch)
        if SFT not in self.weights:
            return out
        chosen = batch.mask & (out.metrics["pair"] > 0)[:, None]
        imitation = Term(
            name=SFT,
            value=-torch.where(chosen, policy.logp, 0.0),
            mask=chosen,
            weight=self.weights[SFT],
            aggregation="token-mean",
            corrected=False,
        )
        return replace(out, terms=[*out.terms, imitation])
