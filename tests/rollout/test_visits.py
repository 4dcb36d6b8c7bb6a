"""Earlier responses by prompt: how many stay, which leave first, and a way through a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from rlkit.rollout.base import Generation
from rlkit.rollout.visits import Stored, Visits
from rlkit.runs.checkpoint import load_tree, save_tree


def stored(*ids: int) -> Stored:
    tokens = torch.tensor(ids, dtype=torch.int64)
    response = Generation(
        response_ids=tokens,
        logp=-tokens.float(),
        policy_version=torch.full((len(ids),), ids[0], dtype=torch.int32),
        finish_reason="stop",
        extras={"kept_logmass": tokens.float() / 8},
    )
    return Stored(response, tokens.double() / 100)


def ids(found: list[Stored]) -> list[list[int]]:
    return [one.response.response_ids.tolist() for one in found]


def test_the_last_visit_of_a_prompt_takes_the_place_of_the_one_before() -> None:
    visits = Visits(100)
    visits.add("a", [stored(1, 2), stored(3)])
    visits.add("a", [stored(4)])
    assert ids(visits.of("a")) == [[4]] and visits.tokens == 1
    assert ids(visits.take("a")) == [[4]] and visits.of("a") == visits.take("a") == []
    assert visits.tokens == 0


def test_several_visits_are_kept_in_order() -> None:
    visits = Visits(100, each=2)
    for number in (1, 2, 3):
        visits.add("a", [stored(number, number)])
    assert ids(visits.of("a")) == [[2, 2], [3, 3]] and visits.tokens == 4


def test_without_room_for_a_visit_nothing_is_kept() -> None:
    visits = Visits(100, each=0)
    visits.add("a", [stored(1)])
    assert visits.of("a") == [] and visits.tokens == 0


def test_prompts_visited_longest_ago_leave_first() -> None:
    visits = Visits(4)
    visits.add("a", [stored(1, 1)])
    visits.add("b", [stored(2)])
    visits.add("a", [stored(3, 3)])  # b is now the oldest
    visits.add("c", [stored(4, 4)])
    assert list(visits.kept) == ["a", "c"] and visits.tokens == 4
    visits.add("d", [stored(5, 5, 5, 5, 5)])
    assert list(visits.kept) == ["a", "c"] and visits.tokens == 4, "it alone does not fit"


def test_what_is_kept_travels_through_a_checkpoint(tmp_path: Path) -> None:
    visits = Visits(9, each=2)
    visits.add("a", [stored(1, 2), stored(3)])
    visits.add("b", [stored(4)])
    visits.add("a", [stored(5)])
    save_tree(tmp_path / "tree", visits.state_dict())
    other = Visits(9, each=2)
    other.load_state_dict(load_tree(tmp_path / "tree"))
    assert list(other.kept) == list(visits.kept) == ["b", "a"]
    assert other.tokens == visits.tokens == 5
    for prompt_id in ("a", "b"):
        for mine, theirs in zip(other.of(prompt_id), visits.of(prompt_id), strict=True):
            assert torch.equal(mine.uniform, theirs.uniform)
            assert mine.uniform.dtype == torch.float64
            assert torch.equal(mine.response.logp, theirs.response.logp)
            assert torch.equal(mine.response.policy_version, theirs.response.policy_version)
            assert mine.response.finish_reason == "stop"
            kept = mine.response.extras["kept_logmass"]
            assert torch.equal(torch.as_tensor(kept), mine.response.response_ids.float() / 8)
    other.add("c", [stored(6, 6, 6, 6, 6)])
    assert list(other.kept) == ["a", "c"], "the order of visits is kept too"


def test_an_empty_state_keeps_nothing() -> None:
    visits = Visits(9)
    visits.add("a", [stored(1)])
    visits.load_state_dict({})
    assert visits.of("a") == [] and visits.tokens == 0
