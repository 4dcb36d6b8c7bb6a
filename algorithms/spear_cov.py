"""SPEAR's two objectives with the covariance clip of its scripts."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.covariance import (
    ClipCovConfig,
    Share,
    drawn_order,
    first_of,
    token_count,
    token_covariance,
)
from algorithms.ppo import ClipHigh
from algorithms.replayed import two_objectives
from algorithms.ratio import RatioLoss
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig
from rlkit.ops import Aggregation
from rlkit.registry import register
