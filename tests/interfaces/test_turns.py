"""What is kept of turns, token by token."""

from __future__ import annotations

import torch

from rlkit.interfaces import STATE, TURN, TURN_REWARD, state_number, turn_extras


def test_the_number_of_a_state_is_that_of_its_content() -> None:
    one = state_number([("user", "1\n2")])
    assert one == state_number([["user", "1\n2"]]) != state_number([("tool", "1\n2")])
    assert state_number({"a": 1, "b": 2}) == state_number({"b": 2, "a": 1})
    assert state_number("\ud800") != state_number("\ud801"), "half a character is a state too"
    assert 0 <= one < 2**48 and len({state_number(i) for i in range(1000)}) == 1000


def test_two_turns_token_by_token() -> None:
    """Both parts of a state's number are exact, and a reward stands on the last token."""
    turn = torch.tensor([1, 1, 0, 0, 2, 2])
    first, second = 2**48 - 1, 5 * 2**24 + 3
    found = turn_extras(turn, [first, second], [0.5, -1.0])
    values = {name: torch.as_tensor(value).tolist() for name, value in found.items()}
    most = 2**24 - 1
    assert values == {
        TURN: [1, 1, 0, 0, 2, 2],
        STATE[0]: [most, most, 0, 0, 5, 5],
        STATE[1]: [most, most, 0, 0, 3, 3],
        TURN_REWARD: [0, 0.5, 0, 0, 0, -1.0],
    }
    assert all(torch.as_tensor(value).dtype == torch.float32 for value in found.values())
    assert TURN_REWARD not in turn_extras(turn, [first, second])


def test_turns_may_follow_each_other_without_a_token_between() -> None:
    found = turn_extras(torch.tensor([1, 2, 2]), [1, 2], [3.0, 4.0])
    assert torch.as_tensor(found[TURN_REWARD]).tolist() == [3.0, 0.0, 4.0]
