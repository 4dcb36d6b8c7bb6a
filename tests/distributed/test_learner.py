"""Backward, clipping and optimizer step, and the optimizer's state there and back."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlkit.distributed.learner
from rlkit.distributed.learner import (
    DataParallelLearner,
    Learner,
    ReplicatedLearner,
    full_tensor,
    full_tensors,
    is_sharded,
    sharded_alike,
    sharded_like,
    sum_gradients,
)
from rlkit.testing.base import stored


def make() -> Learner:
    """Weights 3 and 4 under AdamW."""
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[3.0, 4.0]]))
    return Learner(module, module, torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0))


def gradient(learner: Learner) -> list[float]:
    weight: Any = learner.module.weight
    assert weight.grad is not None
    return weight.grad.flatten().tolist()


def halved_square(learner: Learner) -> Tensor:
    """Its gradient is the weights."""
    weight: Any = learner.module.weight
    return 0.5 * (weight**2).sum()


@pytest.mark.parametrize(
    ("limit", "clipped"), [(10.0, [3.0, 4.0]), (5.0, [3.0, 4.0]), (1.0, [0.6, 0.8])]
)
def test_a_gradient_is_scaled_down_to_the_norm(limit: float, clipped: list[float]) -> None:
    learner = make()
    learner.backward(halved_square(learner))
    assert learner.clip(limit) == pytest.approx(5.0)
    assert gradient(learner) == pytest.approx(clipped, rel=1e-5)


def test_a_gradient_within_the_norm_is_not_written_to() -> None:
    """Its norm is 5; torch adds 1e-6 to it, so that 5 would be scaled by almost 1."""
    learner = make()
    learner.backward(halved_square(learner))
    weight: Any = learner.module.weight
    writes = weight.grad._version
    assert learner.clip(5.00001) == 5.0
    assert weight.grad._version == writes
    learner.clip(5.0)
    assert weight.grad._version > writes


@pytest.mark.parametrize("limit", [5.0, 3.0, 1e-3])
def test_clipping_is_that_of_torch_bit_for_bit(limit: float) -> None:
    learner, other = make(), make()
    for each in (learner, other):
        each.backward(halved_square(each))
    learner.clip(limit)
    nn.utils.clip_grad_norm_(other.module.parameters(), limit)
    assert gradient(learner) == gradient(other)


def test_gradients_add_up_until_they_are_dropped() -> None:
    learner = make()
    for last in (False, True):
        with learner.accumulate(last=last):
            learner.backward(halved_square(learner))
    assert gradient(learner) == [6, 8]
    learner.zero_grad()
    weight: Any = learner.module.weight
    assert weight.grad is None


def stepped(learner: Learner, times: int) -> list[float]:
    for _ in range(times):
        learner.zero_grad()
        learner.backward(halved_square(learner))
        learner.step()
    weight: Any = learner.module.weight
    return weight.flatten().tolist()


def test_the_first_step_of_adam_is_the_learning_rate() -> None:
    assert stepped(make(), 1) == pytest.approx([2.9, 3.9])


def test_a_learner_goes_on_from_its_state() -> None:
    learner, again = make(), make()
    stepped(learner, 3)
    state = stored(learner.state_dict())
    assert set(state["state"]) == {"0"}, "keys are text"
    with torch.no_grad():
        again.module.load_state_dict(learner.module.state_dict())
    again.load_state_dict(state)
    assert stepped(again, 2) == stepped(learner, 2)


def test_the_ranks_average_so_each_scales_its_part_up() -> None:
    learner, waits = make(), list[nn.Module]()

    @contextmanager
    def no_sync(module: nn.Module):
        waits.append(module)
        yield

    accelerator = SimpleNamespace(num_processes=4, no_sync=no_sync)
    parallel = DataParallelLearner(learner.module, learner.wrapped, learner.optimizer, accelerator)
    with parallel.accumulate(last=False):
        assert waits == [learner.wrapped], "not reduced yet"
    with parallel.accumulate(last=True):
        parallel.backward(halved_square(parallel))
    assert len(waits) == 1 and gradient(parallel) == [12, 16]


def ranks_alike(count: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, int]]:
    """So many ranks that compute the same; the types and sizes of what they sum."""
    reduced = list[tuple[torch.dtype, int]]()

    def all_reduce(tensor: Tensor) -> None:
        reduced.append((tensor.dtype, tensor.numel()))
        tensor.mul_(count)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    return reduced


def test_under_masters_the_ranks_sums_are_added_once_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three ranks that compute the same. In bfloat16 257 is 256, and so is 256 + 1."""
    reduced = ranks_alike(3, monkeypatch)
    module = nn.Linear(1, 1, bias=False).bfloat16()
    learner = ReplicatedLearner(module, module, torch.optim.SGD(module.parameters()))
    for gradient, last in ((256.0, False), (1.0, True)):
        with learner.accumulate(last=last):
            learner.backward((module.weight * gradient).sum())
    assert not reduced, "no micro-batch is reduced by itself"
    assert learner.clip(1e9) == 3 * 257
    assert reduced == [(torch.int32, 1), (torch.float32, 1)]


def test_gradients_are_summed_many_at_once_and_what_nothing_used_stays_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rlkit.distributed.learner, "AT_ONCE", 5)
    reduced = ranks_alike(2, monkeypatch)
    weights: Any = [torch.zeros(n) for n in (2, 3, 1, 7)] + [torch.zeros(2, dtype=torch.float64)]
    for number, weight in enumerate(weights):
        weight.grad = torch.full_like(weight, number + 1.0) if number != 2 else None
    sum_gradients(weights)
    assert [w.grad if w.grad is None else w.grad[0].item() for w in weights] == [2, 4, None, 8, 10]
    single, double = torch.float32, torch.float64
    assert reduced == [(torch.int32, 5), (single, 5), (single, 7), (double, 2)]


def test_a_weight_that_another_rank_used_gets_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank has a gradient of 3 for the second weight, this one has none."""
    weights: Any = [torch.zeros(1), torch.zeros(1)]
    weights[0].grad = torch.ones(1)
    others = iter([torch.tensor([0, 1]), torch.tensor([0.0, 3.0])])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(next(others)))
    sum_gradients(weights)
    assert [weight.grad.item() for weight in weights] == [1, 3]


def test_sharded_weights_under_masters_reduce_every_micro_batch() -> None:
    """What waits for the last one waits in bfloat16."""
    module = nn.Linear(1, 1, bias=False).bfloat16()
    accelerator = SimpleNamespace(num_processes=2)  # without a no_sync to ask for
    optimizer = torch.optim.SGD(module.parameters())
    parallel = DataParallelLearner(module, module, optimizer, accelerator)
    for gradient in (256.0, 1.0):
        with parallel.accumulate(last=False):
            parallel.backward((module.weight * gradient).sum())
    assert parallel.clip(1e9) == 2 * 257


class Sharded:
    """A stand-in for a tensor that is spread over ranks."""

    def full_tensor(self) -> Tensor:
        return torch.tensor([1.0, 2.0])


def test_a_sharded_tensor_is_gathered_and_kept_only_where_asked() -> None:
    plain = torch.ones(2)
    assert is_sharded(Sharded()) and not is_sharded(plain)
    assert full_tensor(plain, keep=False) is plain and full_tensor(3) == 3
    assert full_tensor(Sharded()).tolist() == [1, 2]
    assert full_tensor(Sharded(), keep=False) is None
    assert sharded_like(plain, torch.zeros(2)) is plain
    assert full_tensors({"a": {"b": Sharded()}, "c": 3}, keep=False) == {"a": {"b": None}, "c": 3}
    assert sharded_alike({"a": {"b": plain}}, torch.zeros(2))["a"]["b"] is plain
