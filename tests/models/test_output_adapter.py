"""An adapter before the output layer: nothing at first, its log-probs, gradient and removal."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.config.run import LoraConfig
from rlkit.interfaces import Tokens
from rlkit.models.head import Head
from rlkit.models.lora import add_adapter
from rlkit.models.output_adapter import OutputAdapter, States
from rlkit.models.policy import Policy
from tests.tiny import make_policy

TOKENS = Tokens.of(
    [torch.tensor([3, 4, 5]), torch.tensor([6]), torch.tensor([3, 9])],
    [torch.tensor([7, 8]), torch.tensor([9, 3, 4, 1]), torch.tensor([5])],
)
MASK = torch.arange(4) < TOKENS.response_lengths[:, None]


def adapter_of(width: int = 32, rank: int = 3, *, changed: bool = True) -> OutputAdapter:
    draws = torch.Generator().manual_seed(0)
    adapter = OutputAdapter(torch.randn(rank, width, generator=draws) / width**0.5)
    if changed:
        with torch.no_grad():
            adapter.b.copy_(0.3 * torch.randn(width, rank, generator=draws))
    return adapter


def head_of(policy: Policy) -> Head:
    head = Head.of(policy.model)
    assert head is not None
    return head


def test_it_changes_nothing_at_first() -> None:
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(adapter_of(changed=False)(hidden), hidden)


def test_by_hand() -> None:
    """h = (1, 2), A = (1, 1), B = (2, 0)^T: h + B A h = (1 + 6, 2)."""
    adapter = OutputAdapter(torch.tensor([[1.0, 1.0]]))
    with torch.no_grad():
        adapter.b.copy_(torch.tensor([[2.0], [0.0]]))
    assert adapter(torch.tensor([[1.0, 2.0]])).tolist() == [[7.0, 2.0]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("tied", [False, True])
def test_log_probs_are_those_of_the_adapted_model(temperature: float, tied: bool) -> None:
    policy = make_policy(temperature=temperature, tie_word_embeddings=tied)
    policy.head = head_of(policy)
    adapter, states = adapter_of(), States.of(policy, TOKENS)
    with adapter.on(policy.model):
        expected = policy.logp(TOKENS)[MASK]
    found = adapter.logp(policy.model, policy.head, states, policy.temperature)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - policy.logp(TOKENS)[MASK]).abs().max() > 0.01


def test_the_model_is_as_before_afterwards() -> None:
    policy = make_policy()
    before = policy.logp(TOKENS)
    with pytest.raises(KeyError), adapter_of().on(policy.model):
        raise KeyError
    assert torch.equal(policy.logp(TOKENS), before)
    assert not policy.model.get_output_embeddings()._forward_pre_hooks


def test_the_gradient_is_the_adapters_alone() -> None:
    policy = make_policy()
    adapter, states = adapter_of(), States.of(policy, TOKENS)
    value = adapter.logp(policy.model, head_of(policy), states, 1.0).sum()
    value.backward()
    assert all(p.grad is None for p in policy.model.parameters())
    analytic = [p.grad.clone() for p in adapter.parameters if p.grad is not None]
    assert len(analytic) == 2 and all(g.abs().max() > 0 for g in analytic)
    weight: Any = policy.model.get_output_embeddings().weight
    with torch.enable_grad():
        logits = adapter(states.hidden) @ weight.detach().t()
        plain = logits.log_softmax(-1).gather(1, states.ids[:, None]).sum()
    expected = torch.autograd.grad(plain, adapter.parameters)
    for mine, theirs in zip(analytic, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_states_do_not_depend_on_the_batch() -> None:
    policy = make_policy()
    together = States.of(policy, TOKENS)
    alone = States.join([States.of(policy, TOKENS.rows(torch.tensor([row]))) for row in range(3)])
    torch.testing.assert_close(together.hidden, alone.hidden, atol=1e-5, rtol=0)
    assert together.ids.tolist() == alone.ids.tolist() == [7, 8, 9, 3, 4, 1, 5]


def test_a_policy_with_low_rank_adapters_on_its_output_layer() -> None:
    policy = make_policy()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = add_adapter(policy.model, LoraConfig(r=2, target_modules=("lm_head", "q_proj")))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    adapted = Policy(model.train(False), policy.tokenizer, 1.0)
    adapter, states = adapter_of(), States.of(adapted, TOKENS)
    with adapter.on(adapted.model):
        expected = adapted.logp(TOKENS)[MASK]
    found = adapter.logp(adapted.model, head_of(adapted), states, 1.0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
