"""The value function on the policy's backbone."""

from __future__ import annotations

import torch

from rlkit.interfaces import Tokens
from rlkit.models.critic import Critic
from rlkit.models.policy import Policy

PROMPTS = [torch.tensor([3, 12, 4, 13]), torch.tensor([5, 13]), torch.tensor([6, 7, 12, 8, 9, 13])]


RESPONSES = [torch.tensor([4, 5, 1]), torch.tensor([9, 9, 9, 9, 1]), torch.tensor([2])]


def test_the_critic_starts_at_zero_and_reads_the_state_before_each_token(policy: Policy) -> None:
    critic, tokens = Critic(policy.model), Tokens.of(PROMPTS, RESPONSES)
    assert not critic(tokens).any()
    torch.nn.init.normal_(critic.head.weight)
    values = critic(tokens)
    changed = [RESPONSES[0], torch.tensor([9, 9, 9, 9, 2]), RESPONSES[2]]
    assert torch.equal(critic(Tokens.of(PROMPTS, changed)), values), (
        "the last token is not part of its state"
    )
    other = critic(Tokens.of(PROMPTS, [RESPONSES[0], torch.tensor([9, 9, 8, 9, 1]), RESPONSES[2]]))
    assert torch.equal(other[1, :3], values[1, :3]) and not torch.equal(other[1, 3:], values[1, 3:])
    assert not values[0, 3:].any()
    assert not any(p is q for p in critic.parameters() for q in policy.model.parameters())
