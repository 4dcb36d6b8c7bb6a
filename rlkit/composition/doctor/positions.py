"""Where in a response the engine's log-probs differ from the trainer's."""

from __future__ import annotations

import torch
from torch import Tensor

from rlkit.composition.doctor.scored import Scored


def by_position(scored: Scored) -> dict[str, float]:
    """|engine - trainer| in nats: mean and largest of all tokens, largest by where they stand.

    `early` and `late` are means of the first and the last quarter of each response without its
    first and last token; `end` is of the last tokens of responses that ended by themselves.
    """
    size, mask = scored.difference.abs(), scored.mask
    lengths = scored.tokens.response_lengths
    place = torch.arange(size.shape[1]).expand_as(mask)
    last = mask & (place == lengths[:, None] - 1)
    ended = torch.tensor([g.finish_reason == "stop" for _, g in scored.answers])
    inner = mask & (place > 0) & ~last
    early = inner & (place * 4 < lengths[:, None])
    late = inner & (place * 4 >= 3 * lengths[:, None])
    return {
        "mean": mean_of(size[mask]),
        "max": worst_of(size[mask]),
        "first": worst_of(size[mask & (place == 0)]),
        "inner": worst_of(size[inner]),
        "early": mean_of(size[early]),
        "late": mean_of(size[late]),
        "end": worst_of(size[last & ended[:, None]]),
    }


def worst_of(values: Tensor) -> float:
    """The largest, or 0 if there are none."""
    return float(values.max()) if len(values) else 0.0


def mean_of(values: Tensor) -> float:
    """The mean, or 0 if there are none."""
    return float(values.mean()) if len(values) else 0.0
