"""What a response in turns has besides its tokens."""

from __future__ import annotations

from typing import Any

import torch

from rlkit.rollout.base import Generation
from rlkit.rollout.played import Played


def played(**fields: Any) -> Played:
    given: dict[str, Any] = {
        "loss_mask": torch.tensor([True, False, True]),
        "asked": "1+1=",
        "prompt_ids": None,
        "messages": ({"role": "assistant", "content": "2"},),
        "reward": None,
        "counts": {"turns": 2, "calls": 1},
    }
    return Played(**{**given, **fields})


def generation(value: Played | None) -> Generation:
    return Generation(
        response_ids=torch.tensor([4, 5, 6]),
        logp=torch.tensor([-1.0, 0.0, -2.0]),
        policy_version=torch.full((3,), 2, dtype=torch.int32),
        finish_reason="stop",
        extras={"kept_logmass": torch.zeros(3)},
        played=value,
    )


def test_a_response_knows_its_own_tokens() -> None:
    one, many = generation(None), generation(played())
    assert one.loss_mask.tolist() == [True] * 3 and one.own_tokens == 3
    assert many.loss_mask.tolist() == [True, False, True] and many.own_tokens == 2


def test_a_sample_keeps_the_counts_and_a_prompt_of_its_own() -> None:
    assert set(generation(None).kept) == {"kept_logmass"}
    assert {k: v for k, v in generation(played()).kept.items() if k != "kept_logmass"} == {
        "turns": 2.0,
        "calls": 1.0,
    }
    longer = generation(played(prompt_ids=torch.tensor([7, 8])))
    assert torch.as_tensor(longer.kept["prompt_ids"]).tolist() == [7, 8]


def test_a_sample_keeps_its_turns() -> None:
    """State 2^24 + 1 is 1 and 1 in its two halves; a turn without tokens is no token's."""
    turns = played(turn=torch.tensor([1, 0, 3]), states=(2**24 + 1, 7, 9), earned=(0.5, 1.0, 0.0))
    kept = {k: torch.as_tensor(v).tolist() for k, v in turns.extras.items()}
    assert kept == {
        "turns": 2.0,
        "calls": 1.0,
        "turn": [1, 0, 3],
        "state_high": [1, 0, 0],
        "state_low": [1, 0, 9],
        "turn_reward": [0.5, 0, 0],
    }
    again = Played.from_state(turns.state())
    assert {k: torch.as_tensor(v).tolist() for k, v in again.extras.items()} == kept
    old = {k: v for k, v in turns.state().items() if k not in ("turn", "states", "earned")}
    assert set(Played.from_state(old).extras) == {"turns", "calls"}, "of a run that kept none"


def test_the_state_leaves_out_what_lives_elsewhere() -> None:
    whole = played(prompt_ids=torch.tensor([7]), reward=0.5, handle=object())
    state = whole.state()
    assert "handle" not in state
    again = Played.from_state(state)
    assert again.handle is None and again.messages == whole.messages and again.reward == 0.5
    assert torch.equal(again.loss_mask, whole.loss_mask)
