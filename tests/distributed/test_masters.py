"""Float32 masters of half-precision weights: how they move, what they add up, how they go on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlkit.distributed.learner import Learner
from rlkit.distributed.masters import Masters, needs_master
from rlkit.testing.base import stored

RATE = 1e-6
START = torch.linspace(-1, 1, 41).bfloat16()
GRADIENT = torch.linspace(-2, 3, 41).bfloat16()
"""A bfloat16 number each, so that no rounding separates the two runs."""


class Weights(nn.Module):
    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(start.clone())


def learner(start: Tensor = START, previous: Learner | None = None, **settings: Any) -> Learner:
    """AdamW on the weights, or again on those of the previous learner."""
    module = previous.module if previous is not None else Weights(start)
    settings = {"lr": RATE, "weight_decay": 0.0} | settings
    return Learner(module, module, torch.optim.AdamW(module.parameters(), **settings), previous)


def weight(of: Learner) -> Any:
    return of.module.w


def step(of: Learner, gradient: Tensor = GRADIENT, times: int = 1) -> None:
    for _ in range(times):
        of.zero_grad()
        of.backward((weight(of) * gradient.to(weight(of).dtype)).sum())
        of.step()


def master(of: Learner) -> Tensor:
    (found,) = of.masters.of.values()
    return found


def test_masters_move_as_float32_weights_do_and_are_rounded_into_the_weights() -> None:
    half, full = learner(), learner(START.float())
    step(half, times=50)
    step(full, times=50)
    moved = (weight(full) - START.float()).abs()
    assert moved[GRADIENT != 0].min() > 40 * RATE
    assert torch.equal(master(half), weight(full).detach())
    assert weight(half).dtype == torch.bfloat16 and len(full.masters) == 0
    assert torch.equal(weight(half), master(half).bfloat16())
    assert torch.equal(weight(half)[START.abs() > 0.1], START[START.abs() > 0.1]), (
        "alone, such weights would not have moved at all"
    )


def test_second_moments_decay_without_rounding() -> None:
    """v is g^2 (1 - 0.999) 0.999^n after n steps without gradient; bfloat16 would keep v."""
    half = learner()
    step(half)
    step(half, torch.zeros(41), times=100)
    found = half.optimizer.state[master(half)]["exp_avg_sq"]
    assert found.dtype == torch.float32
    expected = GRADIENT.double() ** 2 * 0.001 * 0.999**100
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)


def test_micro_batches_add_up_in_float32() -> None:
    """In bfloat16 256 + 1 is 256, however often."""
    half = learner(torch.ones(1).bfloat16())
    for part in (256.0, *[1.0] * 64):
        with half.accumulate(last=False):
            half.backward((weight(half) * part).sum())
    assert master(half).grad.tolist() == [320] and weight(half).grad is None  # type: ignore[union-attr]
    assert half.clip(32.0) == 320
    assert master(half).grad.tolist() == pytest.approx([32], rel=1e-6)  # type: ignore[union-attr]
    half.zero_grad()
    assert master(half).grad is None


def test_a_learner_goes_on_from_its_state_bit_for_bit() -> None:
    half = learner(lr=1e-3)
    step(half, times=3)
    state = stored(half.state_dict())
    assert state["masters"].keys() == state["state"].keys() == {"0"}
    assert state["masters"]["0"].dtype == torch.float32
    again = learner(weight(half).detach(), lr=1e-3)
    again.load_state_dict(state)
    for each in (half, again):
        step(each, GRADIENT.flip(0), times=2)
    assert torch.equal(master(again), master(half)) and torch.equal(weight(again), weight(half))


def test_a_state_without_masters_starts_them_at_the_weights() -> None:
    """As checkpoints of earlier versions are."""
    half = learner()
    step(half)
    state = stored(half.state_dict())
    del state["masters"]
    again = learner(GRADIENT)
    again.load_state_dict(state)
    assert torch.equal(master(again), GRADIENT.float())
    moment = again.optimizer.state[master(again)]["exp_avg"]
    assert torch.equal(moment, half.optimizer.state[master(half)]["exp_avg"])


def test_a_float32_state_is_what_it_was_without_masters() -> None:
    full = learner(START.float())
    step(full)
    assert full.state_dict().keys() == {"state", "param_groups"}


def test_a_new_learner_takes_the_masters_and_no_moments() -> None:
    half = learner()
    step(half, times=3)
    kept = master(half).clone()
    assert not torch.equal(kept, kept.bfloat16().float())
    again = learner(previous=half)
    assert torch.equal(master(again), kept) and not again.optimizer.state
    again.zero_grad()
    again.backward((weight(again) * GRADIENT).sum())
    assert torch.equal(master(again).grad, GRADIENT.float()), "collected once"  # type: ignore[arg-type]


def test_only_what_is_trained_and_coarse_has_a_master() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Parameter(torch.ones(2).bfloat16(), requires_grad=False)
            self.fine = nn.Parameter(torch.ones(2))
            self.coarse = nn.Parameter(torch.ones(2).half())

    module = Mixed()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    masters = Masters(module, optimizer)
    assert [needs_master(p) for p in module.parameters()] == [False, False, True]
    assert set(masters.state_dict()) == {"2"}
    assert [t.dtype for t in masters.trained] == [torch.bfloat16, torch.float32, torch.float32]
    (group,) = optimizer.param_groups
    assert [a is b for a, b in zip(group["params"], masters.trained, strict=True)] == [True] * 3
    (module.fine + 2 * module.coarse).sum().backward()
    optimizer.step()
    masters.write()
    assert module.fine.tolist() == [0.5, 0.5] and module.coarse.tolist() == [0, 0]
    assert module.frozen.tolist() == [1, 1]


def test_memory_that_runs_out_as_a_gradient_is_collected_counts_none_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backward is tried again, on smaller micro-batches, after the gradient is cleared."""
    half, expected = learner(), learner()
    expected.backward((weight(expected) * GRADIENT).sum())
    with monkeypatch.context() as patched, pytest.raises(torch.OutOfMemoryError):

        def full(tensor: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        patched.setattr(Tensor, "float", full)
        half.backward((weight(half) * GRADIENT).sum())
    half.zero_grad()
    half.backward((weight(half) * GRADIENT).sum())
    assert torch.equal(master(half).grad, master(expected).grad)  # type: ignore[arg-type]
