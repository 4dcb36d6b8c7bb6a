"""The pretend device itself: what CUDA refuses is refused, what makes the host wait is counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.device.pretend import DEVICE, DeviceMix, pretending

REFUSED: dict[str, Callable[[Tensor], object]] = {
    "arange on the CPU": lambda x: x + torch.arange(3),
    "CPU tensor in where": lambda x: torch.where(x > 0, x, torch.zeros(3)),
    "index on the device into a CPU tensor": lambda x: torch.zeros(3)[(x > 0).nonzero()],
    "mask on the device into a CPU tensor": lambda x: torch.zeros(3)[x > 0],
    "CPU values put": lambda x: x.index_put_((torch.tensor([0, 1]),), torch.zeros(2)),
    "numpy": lambda x: x.numpy(),
    "module on the CPU": lambda x: torch.nn.Linear(3, 2)(x),
    "cat": lambda x: torch.cat([x, torch.zeros(1)]),
    "isin": lambda x: torch.isin(x, torch.zeros(2)),
    "gather": lambda x: x.gather(0, torch.tensor([0])),
    "0-dim CPU tensor in a matrix product": lambda x: x.index_add(
        0, torch.tensor(0, device=DEVICE), torch.tensor(1.0)
    ),
    "0-dim on the device with a CPU tensor": lambda x: x.sum() * torch.ones(3),
}
ALLOWED: dict[str, Callable[[Tensor], object]] = {
    "CPU index": lambda x: x[torch.tensor([0, 2])],
    "0-dim CPU tensor": lambda x: x * torch.tensor(2.0),
    "copy": lambda x: torch.zeros(3).copy_(x),
    "to the CPU": lambda x: x.cpu() + torch.ones(3),
    "new_tensor": lambda x: x + x.new_tensor([1.0, 2.0, 3.0]),
    "assignment": lambda x: x.__setitem__(slice(0, 2), torch.zeros(2)),
    "moved module": lambda x: torch.nn.Linear(3, 2).to(DEVICE)(x),
    "arange on the device": lambda x: x + torch.arange(3, device=x.device),
}
WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "if": lambda x: 1 if (x > 0).any() else 0,
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "copy": lambda x: torch.zeros(3).copy_(x),
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: (x > 0).nonzero(),
    "mask": lambda x: x[x > 0],
    "assignment by mask": lambda x: x.__setitem__(x > 0, torch.ones(3, device=DEVICE)[x > 0]),
    "unique": lambda x: torch.unique(x),
    "bincount": lambda x: torch.bincount((x > 0).long()),
    "equal": lambda x: torch.equal(x, x.clone()),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, (x > 0).long()),
}
NO_WAITS: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: (x * 2 + 1).sum(),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "index on the device": lambda x: x[torch.zeros(1, dtype=torch.int64, device=x.device)],
    "sort": lambda x: torch.searchsorted(x.sort().values, x),
    "backward": lambda x: (x.clone().requires_grad_() * 2).sum().backward(),
}


def on_device() -> Tensor:
    return torch.tensor([0.5, -1.0, 2.0], device=DEVICE)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses_is_refused(name: str) -> None:
    with pretending(), pytest.raises((DeviceMix, RuntimeError)):
        REFUSED[name](on_device())


@pytest.mark.parametrize("name", ALLOWED)
def test_what_cuda_allows_is_allowed(name: str) -> None:
    with pretending():
        ALLOWED[name](on_device())


@pytest.mark.parametrize("name", WAITS)
def test_what_makes_the_host_wait_is_counted(name: str) -> None:
    with pretending() as pretence:
        WAITS[name](on_device())
        assert pretence.waits.total() >= 1, "not noticed"


@pytest.mark.parametrize("name", NO_WAITS)
def test_what_the_device_does_alone_is_not_counted(name: str) -> None:
    with pretending() as pretence:
        NO_WAITS[name](on_device())
        assert not pretence.waits


def test_a_wait_is_counted_for_the_line_that_asks() -> None:
    from rlkit.ops import group_size

    with pretending() as pretence:
        x = on_device()
        x.cpu()
        assert pretence.waits == {"outside rlkit: to the CPU": 1}
        group_size(torch.zeros(2, dtype=torch.int64), torch.float32)
        assert pretence.waits.total() == 1, "nothing on the CPU makes anyone wait"


def test_copies_to_the_device_are_counted() -> None:
    with pretending() as pretence:
        torch.ones(3).to(DEVICE)
        assert pretence.uploads == {"outside rlkit": 1} and not pretence.waits


def test_results_are_those_of_the_cpu() -> None:
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    x = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    (weight @ x).tanh().sum().backward()
    with pretending():
        y = on_device().requires_grad_()
        (weight.to(DEVICE) @ y).tanh().sum().backward()
        assert y.grad is not None and x.grad is not None and y.grad.device == DEVICE
        found = y.grad.cpu()
    assert torch.equal(found, x.grad)


def test_afterwards_torch_is_as_before() -> None:
    before = torch.nn.Module.to
    with pretending():
        assert torch.nn.Module.to is not before
    assert torch.nn.Module.to is before
    assert torch.tensor([1.0]).device.type == "cpu" and torch.ones(2).sum().item() == 2.0
