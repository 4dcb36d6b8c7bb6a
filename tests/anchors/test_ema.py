"""The moving average by hand, and BEMA's correction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anchors.ema import Ema, EmaConfig, corrected, power
from anchors.tr_dpo import TrDpo, TrDpoConfig
from rlkit.models.policy import Policy
from tests.anchors.running import Run


def ema(**fields: Any) -> Ema:
    return Ema(EmaConfig(**fields))


def test_the_average_by_hand() -> None:
    """With half of each: 0; 0/2 + 1/2; 0.5/2 + 2/2; 1.25/2 + 3/2."""
    assert Run(ema(decay=0.5)).one(4) == [0, 0.5, 1.25, 2.125]
    assert Run(ema(decay=0.0)).one(4) == [0, 1, 2, 3]


def test_it_moves_every_so_many_steps() -> None:
    assert Run(ema(decay=0.5, every=2)).one(5) == [0, 0, 1, 1, 2.5]


def test_it_is_the_soft_update_of_tr_dpo_each_step() -> None:
    soft = TrDpo(TrDpoConfig(alpha=0.25, every=1))
    assert Run(ema(decay=0.75)).one(9) == Run(soft).one(9)


def test_a_rebirth_starts_the_average_at_the_policy() -> None:
    run = Run(ema(decay=0.5, every=2))
    run.steps(3)
    run.rebirth()
    assert run.one(4) == [3, 3, 4, 4]


def test_bema_by_hand() -> None:
    """theta_t = t, theta_0 = 0: E_1 = b_1, E_2 = (1 - b_2) b_1 + 2 b_2, and a_t t is added."""
    run = Run(ema(bias_corrected=True, ema_power=0.5, bias_power=0.25, offset=2, growth=3))
    b1, b2, a1, a2 = 5**-0.5, 8**-0.5, 5**-0.25, 8**-0.25
    found = torch.tensor([x or 0.0 for x in run.one(3)])
    expected = torch.tensor([0, b1 + a1, (1 - b2) * b1 + 2 * b2 + 2 * a2])
    torch.testing.assert_close(found, expected)


def test_bema_with_powers_of_zero_is_twice_the_way() -> None:
    """b = a = 1: the average is the policy, and the whole move from theta_0 is added to it."""
    run = Run(ema(bias_corrected=True, ema_power=0, bias_power=0, every=2))
    assert run.one(5) == [0, 0, 4, 4, 8]
    run.rebirth()
    assert run.one(3) == [5, 5, 9], "theta_0 and t start again"


def test_the_defaults_of_bema_are_the_sources() -> None:
    c = EmaConfig()
    assert power(90, c.ema_power, c.offset, c.growth) == pytest.approx(0.1)
    assert power(90, c.bias_power, c.offset, c.growth) == pytest.approx(100**-0.2)


def test_bema_adds_to_tensors_of_floats_alone() -> None:
    old, new = ({"w": torch.tensor([x]), "n": torch.tensor([int(x)])} for x in (1.0, 3.0))
    found = {name: float(x) for name, x in corrected(old, new, {"w": torch.tensor([2.0])}, 0.5, 4)}
    assert found == {"w": 2 + 4 * (3 - 2), "n": 3} and float(old["w"]) == 2


def test_a_model_follows_its_policy(policy: Policy) -> None:
    """Every tensor of the reference is the average of before and after."""
    anchor = ema(decay=0.5)
    anchor.rebase(policy)
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(1)
    anchor.after_step(policy, 1, {})
    reference = anchor.reference("base")
    assert reference is not None
    found = reference.state_dict()
    assert found.keys() == before.keys()
    for name, value in policy.model.state_dict().items():
        torch.testing.assert_close(found[name], (before[name] + value) / 2)
