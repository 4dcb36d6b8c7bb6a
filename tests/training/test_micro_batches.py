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
)
from tests.ranks import on_ranks


class Rank(Processes):
    """One of several, whose sums are its own."""

    def __init__(self, rank: int, world_size: int, *, shards: bool = False) -> None:
        self.rank, self.world_size, self.shards_weights = rank, world_size, shards


def lists(splits: list[torch.Tensor]) -> list[list[int]]:
    return [part.tolist() for part in splits]


def fits(limit: int, least: int = 1) -> tuple[list[int], MicroBatches]:
    """The budgets that were tried of a call that fits up to a limit; then 0 if none did."""
    tried: list[int] = []
    micro = MicroBatches(100)

    def call(tokens: int) -> int:
        tried.append(tokens)
        if tokens > limit:
            raise torch.OutOfMemoryError("full")
        return tokens

    try:
        assert micro.run(call, least) == tried[-1]
    except UserError as error:
        assert f"a single sequence of {least} tokens" in str(error)
        tried.append(0)
    return tried, micro


@pytest.mark.slow
def test_a_call_that_does_not_fit_is_tried_with_half_again_and_again() -> None:
    assert fits(100)[0] == [100]
    tried, micro = fits(60)
    assert tried == [100, 50] and (micro.tokens, micro.halvings) == (50, 1), "it stays halved"
    assert fits(20)[0] == [100, 50, 25, 12]


def test_fewer_tokens_than_the_longest_sequence_has_are_not_tried() -> None:
    assert fits(20, least=30)[0] == [100, 50, 25, 0]
    assert fits(0, least=100)[0] == [100, 0]


def test_other_errors_are_not_tried_again() -> None:
    calls: list[int] = []

    def broken(tokens: int) -> None:
        calls.append(tokens)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        MicroBatches(8).run(broken)
    assert calls == [8]


def full(tokens: int) -> None:
    raise torch.OutOfMemoryError("full")


def test_ranks_with_shards_cannot_halve() -> None:
    """They wait for each other inside the forward that did not fit."""
    with pytest.raises(UserError, match="micro-batches of 8 tokens.*set train.micro_batch_tokens"):
        MicroBatches(8, Rank(0, 2, shards=True)).run(full)


def test_a_rank_that_the_others_already_count_on_cannot_halve() -> None:
    micro = MicroBatches(8, Rank(0, 2))

    def call(tokens: int) -> None:
        micro.agree(last=True)
        full(tokens)

    with pytest.raises(UserError, match="cannot halve"):
        micro.run(call)


def test_ranks_halve_together_where_one_runs_out_of_memory() -> None:
    """The second rank fits 30 tokens, the first any number."""

    def rank(processes: Processes) -> tuple[int, list[int]]:
        micro, tried = MicroBatches(100, processes), list[int]()

        def call(tokens: int) -> int:
            tried.append(tokens)
            if processes.rank == 1 and tokens > 30:
                raise torch.OutOfMemoryError("full")
            micro.agree(last=True)
            return int(processes.all_reduce(torch.tensor(tokens)))

        return micro.run(call), tried

    assert on_ranks(rank) == [(50, [100, 50, 25])] * 2


def test_ranks_give_up_together() -> None:
    def rank(processes: Processes) -> str:
        micro = MicroBatches(4, processes)

        def call(tokens: int) -> None:
            if processes.rank == 0:
                full(tokens)
            micro.agree(last=True)

        with pytest.raises(UserError) as told:
            micro.run(call, least=3)
        return str(told.value)

    first, second = on_ranks(rank)
    assert first == second and "a single sequence of 3 tokens" in first


def test_forwards_of_ranks_halve_together() -> None:
    tokens = tokens_of([2, 4, 1, 3])

    def rank(processes: Processes) -> tuple[list[list[float]], int]:
        def forward(part: Tokens) -> torch.Tensor:
            if processes.rank == 1 and len(part.response_ids) > 1:
                raise torch.OutOfMemoryError("full")
            return part.response_ids.double()

        forwards = Forwards(MicroBatches(20, processes), processes)
        return forwards.by_rows(forward, tokens, torch.arange(4)).tolist(), forwards.micro.tokens

    expected = [[1, 1, 0, 0], [2, 2, 2, 2], [3, 0, 0, 0], [4, 4, 4, 0]]
    assert on_ranks(rank) == [(expected, 5)] * 2


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
