"""One episode while it is made."""

from __future__ import annotations

import torch

from rlkit.batch import Prompt, Request
from rlkit.interfaces import Observation, Start
from rlkit.rollout.base import Generation
from rlkit.rollout.turns_episode import Episode, blank, together

PROMPT = Prompt(prompt_id="p", text_or_messages="1", ids=torch.tensor([8, 9]), columns={})


def episode(longest: int = 20) -> Episode:
    return Episode(number=3, start=Start(episode=7, row={}, seed=1), prompt=PROMPT, longest=longest)


def turn(ids: list[int], version: int) -> Generation:
    return Generation(
        response_ids=torch.tensor(ids),
        logp=-torch.arange(1.0, len(ids) + 1),
        policy_version=torch.full((len(ids),), version, dtype=torch.int32),
        finish_reason="stop",
        extras={"kept_logmass": torch.full((len(ids),), -0.5)},
    )


def test_two_turns_by_hand() -> None:
    one = episode()
    assert one.request.ids.tolist() == [8, 9] and one.request.max_tokens == 20
    one.says(turn([1, 2], version=4))
    seen = Observation(said={"role": "assistant", "content": "a"}, counts={"calls": 2, "own": 1})
    one.takes(seen)
    one.hears([{"role": "tool", "content": "b"}], [5, 6, 7])
    assert one.request.ids.tolist() == [8, 9, 1, 2, 5, 6, 7] and one.request.max_tokens == 15
    assert not one.request.prefix.numel() and one.live
    one.says(turn([3], version=6))
    assert one.last.response_ids.tolist() == [3]
    one.takes(Observation(said={"role": "assistant", "content": "c"}, counts={"calls": 1}))
    one.ends("turns")
    found = one.finished(0.5, "handle")
    assert not one.live and found.finish_reason == "turns"
    assert found.response_ids.tolist() == [1, 2, 5, 6, 7, 3]
    assert found.loss_mask.tolist() == [True, True, False, False, False, True]
    assert found.logp.tolist() == [-1, -2, 0, 0, 0, -1]
    assert found.policy_version.tolist() == [4, 4, 4, 4, 4, 6], "what is shown ages nothing"
    assert torch.as_tensor(found.extras["kept_logmass"]).tolist() == [-0.5, -0.5, 0, 0, 0, -0.5]
    assert found.played is not None and found.played.handle == "handle"
    counts = {k: v for k, v in found.played.counts.items() if v}
    assert counts == {"turns": 2, "calls": 3, "own": 1, "observation_tokens": 3}
    assert [message["content"] for message in found.played.messages] == ["a", "b", "c"]
    assert found.played.prompt_ids is None and found.played.reward == 0.5


def test_turns_their_states_and_what_they_earned() -> None:
    """The state after the last turn is none's; a turn that was not answered earned nothing."""
    one = episode()
    one.states.append(11)
    one.says(turn([1, 2], version=4))
    one.earned.append(0.5)
    one.states.append(12)
    one.hears([{"role": "tool", "content": "b"}], [5])
    one.says(turn([], version=4))
    one.earned.append(None)
    one.states.append(13)
    one.hears([{"role": "tool", "content": "c"}], [6])
    one.says(turn([3], version=4))
    found = one.finished(None, None).played
    assert found is not None and found.turn is not None
    assert found.turn.tolist() == [1, 1, 0, 0, 3]
    assert found.states == (11, 12, 13) and found.earned == (0.5, 0.0, 0.0)
    one.earned, one.states = [None, None], [1, 2, 3, 4]
    again = one.finished(None, None).played
    assert again is not None and again.earned is None and again.states == (1, 2, 3)


def test_neighbors_with_one_prompt_are_one_request() -> None:
    again = Prompt(prompt_id="p", text_or_messages="1", ids=PROMPT.ids, columns={})
    asked = [Request(prompt=p, n=1, max_tokens=t) for p, t in ((PROMPT, 3), (PROMPT, 3))]
    other = [Request(prompt=again, n=1, max_tokens=3), Request(prompt=again, n=1, max_tokens=2)]
    assert [request.n for request in together([*asked, *other])] == [2, 1, 1]
    assert together([]) == []


def test_a_number_of_the_whole_response_stays() -> None:
    found = blank({"seed": 3.0, "mass": torch.tensor([-1.0, -2.0])}, 1)
    assert found["seed"] == 3.0 and torch.as_tensor(found["mass"]).tolist() == [0.0]
