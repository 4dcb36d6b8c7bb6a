"""What is made of prompts does not depend on how sequences are laid out or split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from rlkit.interfaces import Tokens
from rlkit.models.head import Head
from rlkit.models.policy import Policy
from rlkit.models.prompt_head import answered_prompts, last_states, width_of
from rlkit.models.rows import Layout
from tests.tiny import make_policy

PROMPTS = [[3, 4, 5, 6], [3, 4, 5, 6], [7, 8], [3, 4, 5, 6], [9, 2, 7]]
RESPONSES = [[5], [6, 7, 8], [2, 2], [], [4, 4, 4, 4]]


def tokens() -> Tokens:
    return Tokens.of(
        [torch.tensor(p) for p in PROMPTS], [torch.tensor(r).long() for r in RESPONSES]
    )


def linear(policy: Policy) -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(width_of(policy.model), 1)


def by_hand(policy: Policy, module: nn.Module, prompt: list[int]) -> Tensor:
    """From the states of the prompt alone."""
    model: Any = policy.model
    states = model.base_model(input_ids=torch.tensor([prompt])).last_hidden_state
    return cast("Tensor", module(states[0].mean(0)))[0]


@pytest.mark.parametrize("layout", ["padded", "packed", "shared_prefix"])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_mean_state_of_each_prompt_is_read_in_every_layout(
    layout: Layout, chunked: bool
) -> None:
    policy = make_policy()
    policy.layout, module = layout, linear(policy)
    policy.head = Head.of(policy.model) if chunked else None
    found = policy.terms(tokens(), module=module).head
    for value, prompt, response in zip(found, PROMPTS, RESPONSES, strict=True):
        expected = by_hand(policy, module, prompt) if response else torch.tensor(0.0)
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    plain = policy.terms(tokens())
    torch.testing.assert_close(policy.terms(tokens(), module=module).logp, plain.logp)
    assert plain.head.tolist() == [0.0] * 5


@pytest.mark.parametrize("layout", ["padded", "packed", "shared_prefix"])
def test_its_gradient_reaches_the_policy_and_the_module_whatever_the_split(layout: Layout) -> None:
    policy = make_policy()
    policy.layout, module = layout, linear(policy)
    weights = [*module.parameters(), *policy.model.base_model.parameters()]
    up = torch.tensor([1.0, -2.0, 3.0, 4.0, 0.5])

    def gradient(splits: list[list[int]]) -> Tensor:
        for weight in weights:
            weight.grad = None
        for rows in map(torch.tensor, splits):
            (policy.terms(tokens().rows(rows), module=module).head * up[rows]).sum().backward()
        return torch.cat([w.grad.flatten() for w in weights if w.grad is not None])

    whole = gradient([[0, 1, 2, 3, 4]])
    assert whole[: width_of(policy.model)].any() and whole[width_of(policy.model) + 1 :].any()
    for splits in ([[0], [1], [2], [4]], [[4, 1], [3, 2, 0]], [[3, 4], [2, 0, 1]]):
        assert (gradient(splits) - whole).norm() / whole.norm() < 1e-6


def test_a_prompt_is_read_where_its_first_response_is() -> None:
    assert answered_prompts(tokens()) == ([0, 2, 4], [0, 0, 1, 3, 2])
    none = replace(tokens(), response_lengths=torch.zeros(5).long())
    assert answered_prompts(none) == ([], [0] * 5)
    policy = make_policy()
    assert policy.terms(none.rows(torch.tensor([0, 2])), module=linear(policy)).head.tolist() == [
        0,
        0,
    ]


def test_states_are_collected_inside_the_context_alone() -> None:
    policy = make_policy()
    with last_states(policy.model) as found:
        policy.logp(tokens())
    policy.logp(tokens())
    assert len(found) == 1 and found[0].shape[-1] == width_of(policy.model)
