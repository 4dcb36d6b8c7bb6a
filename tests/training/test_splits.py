"""How rows are split among ranks and into micro-batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlkit.distributed.processes import Processes
from rlkit.interfaces import Tokens
from rlkit.models.rows import Layout, computed
from rlkit.training.splits import dealt, split, split_rows


class Rank(Processes):
    """One of several."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size


def lists(splits: list[torch.Tensor]) -> list[list[int]]:
    return [part.tolist() for part in splits]


def tokens_of(*rows: tuple[int, int, int]) -> Tokens:
    """Rows of (prompt, its tokens, response tokens)."""
    return Tokens.of(
        [torch.full((size,), name) for name, size, _ in rows],
        [torch.zeros(length, dtype=torch.int64) for *_, length in rows],
    )


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
def test_padded_rows_are_cut_longest_first_within_the_budget(
    lengths: list[int], budget: int, parts: list[list[int]]
) -> None:
    prompts, responses = torch.ones(len(lengths), dtype=torch.int64), torch.tensor(lengths)
    assert lists(split_rows(prompts, responses, budget)) == parts


def test_prompts_and_responses_are_padded_apart() -> None:
    """A long prompt and a long response together pad both rows to twice their length."""
    prompts, responses = torch.tensor([1000, 20, 1000]), torch.tensor([20, 1000, 19])
    assert lists(split_rows(prompts, responses, 4096)) == [[0, 1], [2]]
    assert lists(split_rows(prompts, responses, 3997)) == [[0], [1], [2]]


def test_ranks_share_padded_rows_and_have_equally_many_micro_batches() -> None:
    tokens = tokens_of(*[(3, 1, length - 1) for length in (7, 1, 5, 3, 6, 2, 4)])
    found = [lists(split(tokens, 6, Rank(r, 2), "padded")) for r in range(2)]
    assert found == [[[0], [2], [3, 1]], [[4], [6, 5], []]]
    one = tokens_of((3, 1, 3))
    alone, other = (lists(split(one, 6, Rank(r, 2), "padded")) for r in range(2))
    assert (alone, other) == ([[0]], [[]]), "a rank without rows waits with an empty one"


def test_the_longest_rows_go_to_different_ranks() -> None:
    lengths = torch.tensor([100, 100, 1, 1])
    assert [int(lengths[share].sum()) for share in dealt(lengths, 2)] == [101, 101]


SMALL = (1, 3, 4), (2, 5, 3), (1, 3, 6), (2, 5, 2)
"""Prompt 1 with 3 and 5 more tokens before those predicted, 11 in all; 2 with 2 and 1, 8 in all."""


@pytest.mark.parametrize(
    ("budget", "parts"),
    [
        (19, [[2, 0, 1, 3]]),
        (18, [[2, 0], [1, 3]]),  # a group that fits in one micro-batch is not cut
        (10, [[2], [0], [1, 3]]),
        (7, [[2], [0], [1], [3]]),
        (1, [[2], [0], [1], [3]]),
    ],
)
def test_groups_stay_together_and_count_their_prompt_once(
    budget: int, parts: list[list[int]]
) -> None:
    assert lists(split(tokens_of(*SMALL), budget, Rank(0, 1), "shared_prefix")) == parts


def test_packed_rows_count_a_prompt_each() -> None:
    parts = lists(split(tokens_of(*SMALL), 15, Rank(0, 1), "packed"))
    assert parts == [[2, 1], [0, 3]], "8 and 7 tokens, 6 and 6"


def test_ranks_get_whole_groups_of_about_one_cost() -> None:
    tokens = tokens_of(*[(name, 10, 21) for name in range(4) for _ in range(3)])
    found = [lists(split(tokens, 1000, Rank(r, 2), "shared_prefix")) for r in range(2)]
    assert found == [[[0, 1, 2, 3, 4, 5]], [[6, 7, 8, 9, 10, 11]]]


ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 9)).map(lambda r: (r[0], 1 + 2 * r[0], r[1])),
    min_size=1,
    max_size=20,
)


@given(
    ROWS,
    st.integers(1, 60),
    st.integers(1, 4),
    st.sampled_from(["shared_prefix", "packed", "padded"]),
)
def test_every_row_is_in_one_micro_batch_within_the_budget(
    rows: list[tuple[int, int, int]], budget: int, ranks: int, layout: Layout
) -> None:
    tokens = tokens_of(*rows)
    parts = [split(tokens, budget, Rank(rank, ranks), layout) for rank in range(ranks)]
    assert len({len(splits) for splits in parts}) == 1
    every = [part for splits in parts for part in splits]
    assert sorted(torch.cat(every).tolist()) == [*range(len(rows))]
    for part in every:
        assert len(part) <= 1 or computed(tokens.rows(part), layout) <= budget


@given(ROWS, st.integers(2, 4))
def test_no_rank_has_more_than_its_share_and_one_row(
    rows: list[tuple[int, int, int]], ranks: int
) -> None:
    """Besides that, a prompt whose group is cut is computed twice."""
    tokens = tokens_of(*rows)
    whole = computed(tokens, "shared_prefix")
    widest = int(tokens.lengths.max())
    for rank in range(ranks):
        (part,) = split(tokens, 10**9, Rank(rank, ranks), "shared_prefix")
        cost = computed(tokens.rows(part), "shared_prefix") if len(part) else 0
        assert cost <= whole / ranks + 2 * widest
