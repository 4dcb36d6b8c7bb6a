"""Pure functions of tensors: masked reductions, ratios, KL estimators, aggregation, seeded streams.

Shapes: B responses, T response tokens. Every function masks the log-ratio BEFORE exp, so that
garbage at a masked position can produce neither a value nor a NaN gradient.
"""

from rlkit.ops.groups import (
    apart,
    group_centred,
    group_log_mean_exp,
    group_max,
    group_mean,
    group_share,
    group_size,
    group_sum,
)
from rlkit.ops.kl import (
    UNCLAMPED,
    Clamps,
    KLEstimator,
    adaptive_coefficient,
    kl_penalty,
    kl_value,
    ratio_weighted,
    scaled_gradient,
)
from rlkit.ops.masked import (
    Aggregation,
    RatioLevel,
    aggregate_weights,
    clipped_value_loss,
    effective_sample_size,
    masked_log_ratio,
    masked_mean,
    masked_ratio,
    over_tokens,
    sequence_advantage,
    sequence_log_ratio,
    sequence_mean,
    sequence_sum,
    whiten,
)
from rlkit.ops.mixture import mean_place, optimal_shares
from rlkit.ops.padding import pad
from rlkit.ops.preferences import CHOSEN, PROMPT, REJECTED, split_preference
from rlkit.ops.streams import DIGITS, hash_uniform, staircase, stream_rng, stream_seed

__all__ = [
    "CHOSEN",
    "DIGITS",
    "PROMPT",
    "REJECTED",
    "UNCLAMPED",
    "Aggregation",
    "Clamps",
    "KLEstimator",
    "RatioLevel",
    "adaptive_coefficient",
    "aggregate_weights",
    "apart",
    "clipped_value_loss",
    "effective_sample_size",
    "group_centred",
    "group_log_mean_exp",
    "group_max",
    "group_mean",
    "group_share",
    "group_size",
    "group_sum",
    "hash_uniform",
    "kl_penalty",
    "kl_value",
    "masked_log_ratio",
    "masked_mean",
    "masked_ratio",
    "mean_place",
    "optimal_shares",
    "over_tokens",
    "pad",
    "ratio_weighted",
    "scaled_gradient",
    "sequence_advantage",
    "sequence_log_ratio",
    "sequence_mean",
    "sequence_sum",
    "split_preference",
    "staircase",
    "stream_rng",
    "stream_seed",
    "whiten",
]
