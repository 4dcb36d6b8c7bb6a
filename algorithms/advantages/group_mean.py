"""Differences to the group's mean, Dr. GRPO (arXiv:2503.20783)."""

from __future__ import annotations

from algorithms.advantages.group_norm import GroupNorm
from rlkit.registry import variant

group_mean = variant(
    "group_mean",
    of=GroupNorm,
    std="none",
    sources=("2503.20783",),
    doc="""Dr. GRPO: A = R - mean(R_group), without a division by the group's spread.

    Public code: agrees with verl's norm_adv_by_std_in_grpo=False and TRL's scale_rewards="none".
    """,
)
