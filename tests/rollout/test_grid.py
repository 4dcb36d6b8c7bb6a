"""Responses on a grid of requests by places, with holes where one left."""

from __future__ import annotations

import pytest
import torch

from rlkit.rollout.grid import Grid

CPU = torch.device("cpu")


def test_a_grid_by_hand() -> None:
    """Responses a b | c of two requests, b leaves."""
    grid = Grid.of(torch.tensor([0, 0, 1]), CPU)
    assert (grid.requests, grid.places, grid.full) == (2, 2, False)
    each = torch.tensor([[1.0], [2.0], [3.0]])
    assert grid.spread(each)[:, 0].tolist() == [[1.0, 2.0], [3.0, 0.0]]
    assert grid.gather(grid.spread(each)).equal(each)
    kept = grid.keep(torch.tensor([0, 2]), CPU)
    assert kept.gather(grid.spread(each)).flatten().tolist() == [1.0, 3.0]
    full = Grid.of(torch.tensor([0, 0, 1, 1]), CPU)
    four = torch.arange(8.0).view(4, 2)
    assert full.full and full.spread(four)[1, 0].tolist() == [4.0, 6.0]
    assert full.gather(full.spread(four)).equal(four)


@pytest.mark.parametrize("request_of", [[0, 0, 1], [0, 0, 1, 1]])
def test_writing_reaches_the_places_of_live_responses_alone(request_of: list[int]) -> None:
    grid = Grid.of(torch.tensor(request_of), CPU)
    into = torch.full((2, 1, 2, 1), -1.0)
    each = torch.arange(float(len(request_of))).view(-1, 1, 1)
    grid.write(into, each)
    assert grid.gather(into).equal(each)
    assert int((into == -1).sum()) == 4 - len(request_of)
