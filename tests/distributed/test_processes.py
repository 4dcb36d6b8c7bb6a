"""One process, and a rank of a group that has one member: shares, sums, who is told what."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._C._distributed_c10d import HashStore

from rlkit.distributed.learner import DataParallelLearner, Learner, ReplicatedLearner
from rlkit.distributed.processes import SINGLE, MultiProcess, Processes, named_weights
from rlkit.errors import UserError


class Rank(Processes):
    """One of several."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size


@pytest.mark.parametrize(
    ("count", "shares"),
    [
        (7, [[0, 1], [2, 3], [4, 5, 6]]),
        (3, [[0], [1], [2]]),
        (2, [[], [0], [1]]),
        (0, [[], [], []]),
    ],
)
def test_shares_follow_each_other_and_differ_by_one_at_most(
    count: int, shares: list[list[int]]
) -> None:
    assert [list(range(count))[Rank(rank, 3).share(count)] for rank in range(3)] == shares


def test_one_process_keeps_what_it_has() -> None:
    tensor, module = torch.ones(2), nn.Linear(1, 1)
    assert SINGLE.is_main and not Rank(1, 2).is_main
    assert SINGLE.all_gather("x") == ["x"] and SINGLE.all_reduce(tensor) is tensor
    assert SINGLE.on_main(lambda: 3) == 3 and SINGLE.wrap(module) is module
    assert SINGLE.share(5) == slice(0, 5)
    optimizer = torch.optim.SGD(module.parameters())
    assert type(SINGLE.learner(module, module, optimizer)) is Learner


@pytest.fixture
def alone() -> Iterator[MultiProcess]:
    """The only rank of a group, without accelerate's state, which outlives a test."""
    store = HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    rank = object.__new__(MultiProcess)
    rank.rank, rank.world_size = 0, 1
    rank.accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=1)
    yield rank
    torch.distributed.destroy_process_group()


def test_a_rank_gathers_and_sums_copies(alone: MultiProcess) -> None:
    value, tensor = {"a": 1}, torch.tensor([1.0, 2.0], requires_grad=True)
    assert alone.all_gather(value) == [value]
    total = alone.all_reduce(tensor)
    assert total.tolist() == [1, 2] and not total.requires_grad
    total.add_(5)
    assert tensor.tolist() == [1, 2]


def test_the_main_process_raises_its_own_error(alone: MultiProcess) -> None:
    assert alone.on_main(lambda: {"x": 2}) == {"x": 2}

    def fails() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        alone.on_main(fails)


def test_other_processes_are_told_what_the_first_said(
    alone: MultiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.rank = 1

    def told(said: list[object]):
        def broadcast(out: list[object]) -> None:
            assert out == [None, None], "nothing was called here"
            out[:] = said

        return broadcast

    def call() -> str:
        raise AssertionError

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", told(["result", None]))
    assert alone.on_main(call) == "result"
    failed = "the first process failed: no space"
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", told([None, failed]))
    with pytest.raises(UserError, match=failed):
        alone.on_main(call)


def test_a_module_gets_the_weights_of_the_main_process(
    alone: MultiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that lies in memory otherwise than it is read."""
    module = nn.Linear(2, 3)
    module.weight.data = torch.zeros(2, 3).T
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, rank: tensor.fill_(7 + rank))
    assert alone.wrap(module) is module
    assert all(bool((weight == 7).all()) for weight in module.parameters())


def test_ranks_with_all_weights_sum_once_and_masters_go_on(alone: MultiProcess) -> None:
    plain = nn.Linear(2, 1)
    assert type(alone.learner(plain, plain, torch.optim.SGD(plain.parameters()))) is (
        ReplicatedLearner
    )
    module = nn.Linear(2, 1).bfloat16()
    optimizer = torch.optim.SGD(module.parameters())
    first = alone.learner(module, module, optimizer)
    assert type(first) is ReplicatedLearner
    again = alone.learner(module, module, torch.optim.SGD(module.parameters()), first)
    ours, theirs = (x.masters.of.values() for x in (again, first))
    assert all(a is b for a, b in zip(ours, theirs, strict=True)), "the same masters go on"
    alone.shards_weights = True
    third = alone.learner(module, module, torch.optim.SGD(module.parameters()))
    assert type(third) is DataParallelLearner


class Tied(nn.Module):
    """Two names of one weight, a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.ones(1))
        self.register_buffer("lost", torch.ones(1), persistent=False)


def test_named_weights_are_the_state_dict() -> None:
    module = Tied()
    found, expected = named_weights(module), module.state_dict()
    assert found.keys() == expected.keys() == {"first.weight", "second.weight", "kept"}
    for name, value in found.items():
        assert value.data_ptr() == expected[name].data_ptr() and not value.requires_grad
