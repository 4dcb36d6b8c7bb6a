"""The turns of an episode, token by token: what `Sample.extras` keeps of them.

A buffer, a checkpoint and a stored rollout hold them as they hold every value per token, and an
advantage finds them in `AdvantageBatch.extras`. A response without an environment has none.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

TURNS = "turns"
"""How often the policy spoke, a number of the whole response."""
TURN = "turn"
"""[T], the number of the policy's turn that a token belongs to, from 1 on; 0 for what it was
shown."""
STATE = ("state_high", "state_low")
"""[T] each, the upper and the lower 24 bits of the number of the state in which the policy took the
turn of a token; 0 for what it was shown. Float32 holds such parts exactly, the whole it does not.
"""
TURN_REWARD = "turn_reward"
"""[T], what a turn earned, on its last token; only if the environment gives rewards per turn."""
BITS = 24


def state_number(state: Any) -> int:
    """A number of 48 bits for a state, which is text, or what JSON can hold: alike if they are."""
    text = json.dumps(state, sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=2 * BITS // 8)
    return int.from_bytes(digest.digest(), "big")


def per_token(values: list[float], turn: Tensor) -> Tensor:
    """The value of each token's turn, [T] float32; 0 for what the policy was shown."""
    return torch.tensor([0.0, *values], dtype=torch.float32)[turn]


def turn_extras(
    turn: Tensor, states: list[int], rewards: list[float] | None = None
) -> dict[str, Tensor | float]:
    """The entries of `Sample.extras` for the turns of a response.

    `turn` [T] int64 is as under `TURN`, with one state, and one reward if there are any, per turn.
    """
    found: dict[str, Tensor | float] = {TURN: turn.float()}
    parts = ([number >> BITS for number in states], [number % 2**BITS for number in states])
    for name, values in zip(STATE, parts, strict=True):
        found[name] = per_token([float(value) for value in values], turn)
    if rewards is not None:
        after = torch.cat([turn[1:], turn.new_zeros(1)])
        last = (turn > 0) & (after != turn)
        found[TURN_REWARD] = torch.where(last, per_token(rewards, turn), 0.0)
    return found
