"""The value function on the policy's backbone."""

from __future__ import annotations

import math

import pytest
import torch

from rlkit.config.run import LoraConfig
from rlkit.interfaces import Tokens
from rlkit.models.critic import Critic
from rlkit.models.lora import adapter_weights, add_adapter, merged, parameters
from rlkit.models.policy import Policy
from rlkit.models.rows import Layout
from tests.tiny import make_policy

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


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "embed_tokens")])
def test_the_critic_of_a_policy_with_adapters_has_them_merged(
    targets: str | tuple[str, ...],
) -> None:
    """It is trained in full: adapters beside its weights would be trained twice."""
    plain, policy, some = make_policy(), make_policy(), Tokens.of(PROMPTS, RESPONSES)
    adapted = add_adapter(policy.model, LoraConfig(r=2, target_modules=targets))
    with torch.no_grad():
        for weight in parameters(adapted).values():
            weight.add_(0.3 * torch.randn_like(weight))
    before = adapter_weights(adapted)
    plain.model.load_state_dict(dict(merged(adapted)))
    critic, expected = Critic(adapted), Critic(plain.model)
    assert critic.state_dict().keys() == expected.state_dict().keys()
    assert all(weight.requires_grad for weight in critic.parameters())
    for each in (critic, expected):
        torch.nn.init.ones_(each.head.weight)
    torch.testing.assert_close(critic(some), expected(some))
    assert all(torch.equal(before[n], weight) for n, weight in parameters(adapted).items())


def aged(*ages: int) -> Tokens:
    return Tokens.of(PROMPTS, RESPONSES, age=torch.tensor(ages))


@pytest.mark.parametrize("layout", ["padded", "packed", "shared_prefix"])
def test_a_critic_that_sees_the_age_adds_to_the_value_what_grows_with_it(
    policy: Policy, layout: Layout
) -> None:
    """V + log(1 + a) u: nothing at age 0, u at e - 1, and each row by its own age."""
    plain, critic = (Critic(policy.model, None, layout, sees_age=x) for x in (False, True))
    assert not critic(aged(1, 2, 3)).any()
    torch.nn.init.normal_(critic.head.weight)
    with torch.no_grad():
        plain.head.weight.copy_(critic.head.weight[:1])
    fresh = critic(aged(0, 0, 0))
    torch.testing.assert_close(fresh, plain(aged(5, 5, 5)))
    once, mixed = critic(aged(1, 1, 1)), critic(aged(3, 0, 1))
    slope = (once - fresh) / math.log(2)
    assert slope[0].any()
    expected = fresh + torch.tensor([2.0, 0.0, 1.0])[:, None] * math.log(2) * slope
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-4)
