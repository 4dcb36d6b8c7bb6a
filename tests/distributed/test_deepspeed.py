"""What DeepSpeed is told; runs with it are in tests/end_to_end/test_processes.py."""

from __future__ import annotations

import pytest

from rlkit.distributed.deepspeed import settings


@pytest.mark.parametrize(
    ("stage", "half", "accumulates"), [("1", True, None), ("2", True, "fp32"), ("2", False, None)]
)
def test_micro_batches_of_half_precision_add_up_in_float32_where_zero_can(
    stage: str, half: bool, accumulates: str | None
) -> None:
    """Its default is the weights' own precision."""
    told = settings(stage, half=half)
    assert told["bf16"] == {"enabled": half}
    assert told["zero_optimization"] == {"stage": int(stage)}
    assert told["data_types"].get("grad_accum_dtype") == accumulates
