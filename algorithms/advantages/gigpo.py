"""Advantages of turns beside those of episodes, GiGPO (arXiv:2505.10978)."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from algorithms.advantages.group_norm import GroupNormConfig, Singleton, group_advantage
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.errors import UserError
from rlkit.interfaces import STATE, TURN, TURN_REWARD, TURNS, AdvantageEstimator
from rlkit.ops import group_size, over_tokens
from rlkit.registry import register


class Turns(NamedTuple):
    """The N turns of a batch, those of a response one after the other."""

    of: Tensor
    """[B, T] int64, the turn of each token; anything where masked."""
    row: Tensor
    """[N] int64, the response that a turn belongs to."""
    state: Tensor
    """[N] int64, equal for turns that were taken in the same state of the same group."""
    reward: Tensor
    """[N], what each turn earned; the rewards of a response's turns sum up to its outcome."""


def turns_of(b: AdvantageBatch) -> Turns:
    """The turns of a batch. A response without an environment is one turn, taken at its prompt.

    What the rewards of its turns leave of a response's outcome falls on its last turn: all of it if
    the environment gives no rewards per turn. Raises UserError for responses in several turns that
    do not say which they are.
    """
    blank = torch.zeros_like(b.mask, dtype=torch.float32)
    number = b.extras.get(TURN, blank).long()
    known = (number > 0).any(-1)
    if bool((~known & (b.extras.get(TURNS, blank[:, 0]) > 1)).any()):
        raise UserError(
            "responses in several turns do not say which token is of which turn: they were made by "
            "an rlkit that did not keep it; train on new ones, or choose another advantage"
        )
    number = torch.where(known[:, None], number, 1)
    rows = torch.arange(len(b.mask), device=b.mask.device)
    keys = rows[:, None] * (int(number.max()) + 1) + number
    found, place = torch.unique(keys[b.mask], return_inverse=True)
    of = torch.zeros_like(number).masked_scatter(b.mask, place)
    row = found // (int(number.max()) + 1)

    def each(values: Tensor) -> Tensor:
        """The value that all tokens of a turn have, [N]."""
        return values.new_zeros(len(found)).scatter(0, place, values[b.mask])

    parts = [each(b.extras.get(name, blank)).long() for name in STATE]
    told = torch.stack([b.group[row], *parts], -1)
    _, state = torch.unique(told, dim=0, return_inverse=True)
    outcome = b.reward.double()  # sums of float32 would make returns differ that are equal
    reward = outcome.new_zeros(len(found))
    given = b.extras.get(TURN_REWARD, blank).double()
    reward = reward.index_add(0, place, given[b.mask])
    left = outcome - torch.zeros_like(outcome).index_add(0, row, reward)
    return Turns(of, row, state, reward + torch.where(is_last(row), left[row], 0.0))


def is_last(row: Tensor) -> Tensor:
    """Whether each of the turns [N] is the last one of its response."""
    return torch.cat([row[1:] != row[:-1], row.new_ones(1).bool()])


def discounted_returns(reward: Tensor, row: Tensor, gamma: float) -> Tensor:
    """R_t = r_t + gamma R_{t+1} within each response, [N] (arXiv:2505.10978, Eq. 5)."""
    returns, running = [], 0.0
    for value, last in zip(reward.flip(0).tolist(), is_last(row).flip(0).tolist(), strict=True):
        running = value if last else value + gamma * running
        returns.append(running)
    return reward.new_tensor(returns[::-1])


class GiGPOConfig(GroupNormConfig):
    """Settings of both advantages, which are scaled alike."""

    std: Literal["group", "none"] = "group"  # pyright: ignore[reportIncompatibleVariableOverride]
    """What differences are divided by: the standard deviation of the group, or of the turns in the
    same state; or nothing. The paper leaves both; the authors' scripts divide for ALFWorld, and do
    not for WebShop and in their default."""
    omega: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the step advantage. 1 in the paper and in the authors' scripts; 0 leaves the
    episode's advantage alone."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Discount per turn of the return that the step advantage compares."""
    episodes_count: Literal["once", "per_turn"] = "once"
    """How often an episode counts in the mean and the standard deviation of its group: once, as in
    the paper's Eq. 3, or once for each of its turns, as in the authors' code."""


@register("advantage", "gigpo")
class GiGPO(AdvantageEstimator[GiGPOConfig]):
    """The advantage of the episode, and that of the turn among turns taken in the same state.

        A(turn t of episode i) = A_E(i) + omega A_S(i, t)
        A_E(i) = (R(i) - mean of the group) / std of the group
        A_S(i, t) = (R_t(i) - mean in the state) / std in the state
        R_t = sum_{k >= t} gamma^(k - t) r_k

    Source: arXiv:2505.10978, Eqs. 3 and 5 to 8. The anchor state is the one in which a turn was
    taken: what the environment said last, or its own `turn_state`; for the first turn the prompt.
    Turns of one group whose states are equal are compared, also turns of one episode; a state met
    once gives 0. A is the same for all tokens of a turn. r_k are the environment's rewards per turn
    if it gives any; what they leave of the total reward, or all of it, is earned by the last turn.

    A response without an environment is one turn taken at its prompt: then A_S = A_E, and
    A = (1 + omega) A_E.

    Status: adapted. One response holds all turns and their history, which the authors' environments
    summarize for each turn anew; their similarity of states in place of equality is not offered.
    Public code: langfengQ/verl-agent, by copies of its gigpo/core_gigpo.py: gamma 0.95, weight 1,
    unbiased deviations, eps 1e-6. It counts an episode per turn where the paper does once.
    """

    sources = ("2505.10978",)
    min_group = 2

    @property
    def divides_by_spread(self) -> bool:
        """By the settings."""
        return self.config.std == "group"

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        returns = over_tokens(b.reward, b.mask)
        if not bool(b.mask.any()):
            return AdvantageOutput(advantage=torch.zeros_like(returns), returns=returns)
        c, turns = self.config, turns_of(b)

        def scaled(reward: Tensor, group: Tensor, singleton: Singleton) -> Tensor:
            return group_advantage(
                reward, group, std=c.std, unbiased=c.unbiased, eps=c.eps, singleton=singleton
            )

        if c.episodes_count == "once":
            episode = scaled(b.reward, b.group, c.singleton)[turns.row]
        else:
            episode = scaled(b.reward[turns.row], b.group[turns.row], c.singleton)
        earned = discounted_returns(turns.reward, turns.row, c.gamma).to(b.reward.dtype)
        step = scaled(earned, turns.state, "zero")
        shared = group_size(turns.state, step.dtype) > 1
        return AdvantageOutput(
            advantage=torch.where(b.mask, (episode + c.omega * step)[turns.of], 0.0),
            returns=returns,
            metrics={
                "advantage/shared_states": float(shared.to(step.dtype).mean()),
                "advantage/step": float(step.abs().mean()),
            },
        )
