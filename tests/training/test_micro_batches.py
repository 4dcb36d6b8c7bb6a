"""How rows are cut by tokens, and what happens where memory does not suffice."""

from __future__ import annotations

import pytest
import torch

from rlkit.distributed.processes import Processes
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.training.micro_batches import (
    Forwards,
    MicroBatches,
    is_out_of_memory,
    micro_batches,
    split_rows,
)


class Rank(Processes):
    """One of several, whose sums are its own."""

    def __init__(self, rank: int, world_size: int, *, shards: bool = False) -> None:
        self.rank, self.world_size, self.shards_weights = rank, world_size, shards


def lists(splits: list[torch.Tensor]) -> list[list[int]]:
    return [part.tolist() for part in splits]


@pytest.mark.parametrize(
    ("lengths", "budget", "parts"),
    [
        ([3, 9, 4, 9], 18, [[1, 3], [2, 0]]),
        ([3, 9, 4, 9], 17, [[1], [3], [2, 0]]),
        ([5, 5, 5], 100, [[0, 1, 2]]),
        ([50, 2], 10, [[0], [1]]),
        ([0, 0], 1, [[0], [1]]),
        ([], 10, []),
    ],
)
def test_rows_are_cut_longest_first_within_the_budget(
    lengths: list[int], budget: int, parts: list[list[int]]
) -> None:
    assert lists(split_rows(torch.tensor(lengths), budget)) == parts


def test_ranks_share_all_rows_and_have_equally_many_micro_batches() -> None:
    lengths, budget = torch.tensor([7, 1, 5, 3, 6, 2, 4]), 6
    found = [lists(micro_batches(lengths, budget, Rank(r, 2))) for r in range(2)]
    assert found == [[[0], [2], [3, 1]], [[4], [6], [5]]]
    alone, other = (lists(micro_batches(torch.tensor([4]), 6, Rank(r, 2))) for r in range(2))
    assert (alone, other) == ([[0]], [[]]), "a rank without rows waits with an empty one"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def fits(limit: int) -> tuple[list[int], MicroBatches]:
    """The budgets that were tried of a call that fits up to a limit."""
    tried: list[int] = []
    micro = MicroBatches(100)

    def call(tokens: int) -> int:
        tried.append(tokens)
        if tokens > limit:
            raise torch.OutOfMemoryError("full")
        return tokens

    try:
        assert micro.run(call) == tried[-1]
    except UserError as error:
        assert f"micro-batches of {tried[-1]} tokens" in str(error)
        tried.append(0)
    return tried, micro


def test_a_call_that_does_not_fit_is_tried_once_more_with_half() -> None:
    assert fits(100)[0] == [100]
    tried, micro = fits(60)
    assert tried == [100, 50] and (micro.tokens, micro.halvings) == (50, 1), "it stays halved"
    assert fits(40)[0] == [100, 50, 0]


def test_other_errors_and_calls_that_others_wait_for_are_not_tried_again() -> None:
    calls: list[int] = []

    def broken(tokens: int) -> None:
        calls.append(tokens)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        MicroBatches(8).run(broken)

    def full(tokens: int) -> None:
        calls.append(tokens)
        raise torch.OutOfMemoryError("full")

    with pytest.raises(UserError, match="micro_batch_tokens"):
        MicroBatches(8, halves=False).run(full)
    assert calls == [8, 8]


def test_halving_ends_at_one_token() -> None:
    micro = MicroBatches(3)
    micro.halve(5)
    assert (micro.tokens, micro.halvings) == (1, 5)


def tokens_of(lengths: list[int]) -> Tokens:
    """Responses whose every id is the row's number plus 1, after prompts of one token."""
    rows = [torch.full((n,), i + 1) for i, n in enumerate(lengths)]
    return Tokens.of([torch.tensor([9])] * len(lengths), rows)


def shapes(seen: list[tuple[int, ...]]):
    def forward(tokens: Tokens) -> torch.Tensor:
        seen.append(tuple(tokens.response_ids.shape))
        return tokens.response_ids.double()

    return forward


@pytest.mark.parametrize("budget", [1, 8, 1000])
def test_forwards_give_every_row_its_own_numbers_in_the_order_asked(budget: int) -> None:
    tokens = tokens_of([2, 4, 1, 3])
    found = Forwards(MicroBatches(budget)).by_rows(shapes([]), tokens, torch.tensor([3, 0, 2]))
    assert found.tolist() == [[4, 4, 4, 0], [1, 1, 0, 0], [3, 0, 0, 0]]
    assert found.dtype == torch.float32


def test_forwards_keep_features_and_run_none_for_no_rows() -> None:
    tokens, seen = tokens_of([2, 1]), list[tuple[int, ...]]()

    def two(part: Tokens) -> torch.Tensor:
        return torch.stack([part.response_ids, -part.response_ids], -1)

    forwards = Forwards(MicroBatches(100))
    found = forwards.by_rows(two, tokens, torch.arange(2), (2,))
    assert found[0].tolist() == [[1, -1], [1, -1]] and found[1].tolist() == [[2, -2], [0, 0]]
    none = forwards.by_rows(shapes(seen), tokens, torch.arange(0), (2,))
    assert none.shape == (0, 2, 2) and not seen


@pytest.mark.parametrize(("shards", "forwards"), [(True, [(1, 3)]), (False, [])])
def test_a_rank_without_rows_joins_a_forward_only_if_weights_are_sharded(
    shards: bool, forwards: list[tuple[int, ...]]
) -> None:
    seen: list[tuple[int, ...]] = []
    rank = Rank(1, 2, shards=shards)
    found = Forwards(MicroBatches(100), rank).by_rows(shapes(seen), tokens_of([3]), torch.arange(1))
    assert seen == forwards and not found.any()


@pytest.mark.parametrize("budget", [1, 9, 20, 1000])
def test_micro_batches_partition_the_rows_within_the_budget(budget: int) -> None:
    lengths = torch.tensor([5, 9, 2, 9, 1, 7])
    splits = split_rows(lengths, budget)
    assert sorted(torch.cat(splits).tolist()) == list(range(6))
    assert all(len(s) == 1 or len(s) * int(lengths[s].max()) <= budget for s in splits)
    if budget == 1000:
        assert len(splits) == 1
