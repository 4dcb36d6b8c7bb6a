"""On-policy distillation: each token's advantage is what a teacher thinks of it (MOPD)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from algorithms.advantages.group_norm import group_advantage
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.ops import masked_log_ratio, masked_mean, over_tokens
from rlkit.registry import register

TEACHER = "teacher"


class MopdConfig(PartConfig):
    """Settings of the distillation."""

    student: Literal["prox", "behavior"] = "prox"
    """Whose log-probs the teacher's are compared with. prox = pi_k, the policy at the start of the
    step, whose weight to the policy that sampled is part of the advantage: for a loss whose ratio
    is to prox. behavior = those recorded when the response was sampled, without a forward of the
    policy and without a weight: for a loss whose ratio is to behavior."""
    is_min: Annotated[float, Field(ge=0)] = 0.5
    """A token whose weight is below this gets advantage 0. The paper prints no value: unconfirmed;
    this is IcePop's (arXiv:2510.18855), by which NeMo-RL cuts."""
    is_max: Annotated[float, Field(gt=0)] | None = 5.0
    """A token whose weight is above this gets advantage 0; null = no bound. Unconfirmed, see
    `is_min`."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Bounds |log teacher - log student|; null = no bound, as in the paper."""
    outcome: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the outcome beside the teacher: the reward less its group's mean is added times
    this (the paper's alpha, whose value it does not print). 0 = the teacher alone."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.is_max is not None and self.is_max < self.is_min:
            raise ValueError(f"is_max={self.is_max} is below is_min={self.is_min}; raise is_max")
        return self


def window_weight(log_ratio: Tensor, low: float, high: float | None) -> Tensor:
    """exp(log_ratio) [B, T] where it is in [low, high], else 0; at most exp(20)."""
    weight = log_ratio.clamp(max=20.0).exp()
    inside = weight >= low
    if high is not None:
        inside = inside & (weight <= high)
    return torch.where(inside, weight, 0.0)


@register("advantage", "mopd")
class Mopd(AdvantageEstimator[MopdConfig]):
    """Dense feedback from a teacher on the student's own responses.

        A_t = w_t (log pi_teacher(y_t) - log pi_k(y_t) + outcome (R - mean R_group))
        w_t = pi_k / mu where is_min <= pi_k / mu <= is_max, else 0

    pi_k is the policy at the start of the step, mu the one that sampled the token. With
    loss=importance_sampling, which multiplies by pi / pi_k, a token's gradient weighs pi / mu: the
    policy gradient of the reverse KL to the teacher, token by token. Needs anchor=teacher, whose
    model and the policy read the same tokens. A demonstration, whose mu is unknown, has w = 1, and
    with student=behavior the outcome alone.

    Source: MiMo-V2-Flash (arXiv:2601.02780). Status: adapted. The paper compares with the policy of
    each update rather than with pi_k (the same in a batch's first update) and takes each prompt's
    teacher by its domain; here there is one teacher.

    Public code: NeMo-RL's OPDAdvantageEstimator has this advantage without the weight, which its
    loss takes by IcePop's window, and the outcome at weight 0; slime and Trinity-RFT have it
    without a window, and verl's was not merged.
    """

    sources = ("2601.02780",)

    def __init__(self, config: MopdConfig | None = None) -> None:
        super().__init__(config)
        student = {"prox"} if self.config.student == "prox" else set[str]()
        self.needs = frozenset({"behavior", f"anchor:{TEACHER}", *student})

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c, teacher = self.config, b.anchor_logp[TEACHER]
        student, known = b.prox_logp, b.mask
        if c.student == "behavior":
            student, known = b.behavior_logp, b.mask & ~b.expert[:, None]
        distance = masked_log_ratio(teacher, student, known, c.clip)
        advantage = distance
        metrics = {"advantage/teacher_kl": -float(masked_mean(distance, known))}
        if c.outcome > 0:
            centred = group_advantage(
                b.reward, b.group, std="none", unbiased=True, eps=1e-6, singleton="zero"
            )
            advantage = advantage + c.outcome * over_tokens(centred, b.mask)
        if c.student == "prox":
            moved = masked_log_ratio(b.prox_logp, b.behavior_logp, b.mask)
            weight = window_weight(moved, c.is_min, c.is_max)
            weight = torch.where(b.expert[:, None], 1.0, weight)
            advantage = weight * advantage
            cut = (weight == 0).to(weight.dtype)
            metrics["advantage/cut"] = float(masked_mean(cut, b.mask))
        return AdvantageOutput(
            advantage=advantage,
            returns=over_tokens(b.reward, b.mask),
            metrics=metrics,
        )
