"""What anchors on an average share: the mixture, and an average finer than the policy's type."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anchors.average import fine_copy, mix, rounds
from anchors.ema import Ema, EmaConfig
from tests.anchors.running import Run, resumed


def ema(**fields: Any) -> Ema:
    return Ema(EmaConfig(**fields))


def test_tensors_that_hold_no_floats_are_the_policys() -> None:
    def mixed(share: float) -> dict[str, float]:
        old, new = ({"w": torch.tensor([x]), "n": torch.tensor([int(x)])} for x in (1.0, 3.0))
        return {name: float(value) for name, value in mix(old, new, share)}

    assert mixed(0.5) == {"w": 2, "n": 3}
    assert mixed(1.0) == {"w": 3, "n": 3} and mixed(0.0) == {"w": 1, "n": 3}


def test_tied_weights_move_once() -> None:
    tied, other = torch.zeros(1), torch.tensor([8.0])
    found = dict(mix({"in": tied, "out": tied}, {"in": other, "out": other}, 0.5))
    assert float(tied) == 4 and list(found) == ["in"]
    assert fine_copy({"in": tied, "out": tied}).keys() == {"in"}


def test_a_coarser_type_of_one_tensor_rounds() -> None:
    exact = {"a": torch.zeros(1), "b": torch.zeros(1).double(), "n": torch.zeros(1).int()}
    assert not rounds(exact)
    assert rounds(exact | {"b": torch.zeros(1).bfloat16()})
    kept = fine_copy(exact | {"c": torch.zeros(1).bfloat16()})
    assert [kept[name].dtype for name in "abc"] == [torch.float32, torch.float64, torch.float32]


def test_no_average_is_kept_beside_a_reference_that_holds_it_exactly() -> None:
    run = Run(ema())
    run.steps(3)
    state = run.anchor.state_dict()
    assert state["frozen"].keys() == {"base"} and state["means"] == {}


def test_small_shares_are_not_lost_in_a_coarse_type() -> None:
    """Below 256 a bfloat16 holds whole numbers, which steps of 0.128 would never reach."""
    run = Run(ema(decay=0.999), torch.bfloat16)
    run.policy.number.fill_(256)
    run.rebirth()
    average = 256.0
    for _ in range(20):
        run.policy.number.fill_(128)
        run.anchor.after_step(run.policy, 1, {})
        average = 0.999 * average + 0.001 * 128
    mean = run.anchor.state_dict()["means"]["base"]["number"]
    assert mean.dtype == torch.float32
    torch.testing.assert_close(float(mean), average, rtol=1e-5, atol=0)
    reference = run.anchor.reference("base")
    assert reference is not None
    number = reference.state_dict()["number"]
    assert number == torch.tensor(average).bfloat16() and number.dtype == torch.bfloat16


@pytest.mark.parametrize("fields", [{"decay": 0.9}, {"bias_corrected": True}, {"every": 3}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_average_goes_on_the_same(fields: dict[str, Any], dtype: torch.dtype) -> None:
    run = Run(ema(**fields), dtype)
    run.steps(5)
    assert resumed(run).one(40) == run.one(40)
