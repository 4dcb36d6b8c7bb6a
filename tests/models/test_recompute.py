"""Gradient checkpointing changes no number, whatever a model drops in training mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rlkit.config.run import ModelConfig
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.critic import Critic
from rlkit.models.load import given_policy
from rlkit.models.policy import Policy
from rlkit.models.recompute import checkpoint_layers, evaluating, is_checkpointed
from tests.tiny import CHARACTERS, make_dropping_model, make_policy, make_tokenizer

PROMPTS = [torch.tensor([3, 12, 4, 13]), torch.tensor([5, 13])]
RESPONSES = [torch.tensor([4, 5, 1]), torch.tensor([9, 9, 9, 9, 1])]
TOKENS = Tokens.of(PROMPTS, RESPONSES)


def opt() -> PreTrainedModel:
    """Its layers drop in their own forward, and its stack skips whole layers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return OPTForCausalLM(
            OPTConfig(
                vocab_size=len(CHARACTERS) + 2,
                hidden_size=16,
                ffn_dim=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=32,
                word_embed_proj_dim=16,
                dropout=0.3,
                attention_dropout=0.3,
                layerdrop=0.5,
            )
        )


MODELS = {
    "gpt2": make_dropping_model,
    "opt": opt,
    "llama": lambda: make_policy(attention_dropout=0.5).model,
}


def policy_of(model: PreTrainedModel, *, on: bool, dropout: bool = False) -> Policy:
    config = ModelConfig(device="cpu", gradient_checkpointing=on, dropout=dropout)
    return given_policy(config, (model, make_tokenizer()), 1.0)


def gradient(policy: Policy, masks: int | None = None) -> Tensor:
    policy.model.zero_grad()
    policy.terms(TOKENS, masks=masks).logp.sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


def layer_calls(policy: Policy) -> int:
    """How often the first module of the first layer runs in a forward and its backward."""
    layers = (m for m in policy.model.modules() if isinstance(m, GradientCheckpointingLayer))
    calls: list[int] = []
    hook = next(next(layers).children()).register_forward_hook(lambda *_: calls.append(1))
    gradient(policy)
    hook.remove()
    return len(calls)


@pytest.mark.parametrize("name", MODELS)
def test_log_probs_and_gradients_are_the_same_bit_for_bit(name: str) -> None:
    off, on = (policy_of(MODELS[name](), on=flag) for flag in (False, True))
    assert torch.equal(off.logp(TOKENS), on.logp(TOKENS))
    assert torch.equal(gradient(off), gradient(on))
    assert not on.model.training and (layer_calls(off), layer_calls(on)) == (1, 2)


@pytest.mark.parametrize("name", MODELS)
def test_with_dropout_the_second_forward_draws_the_same_masks(name: str) -> None:
    off, on = (policy_of(MODELS[name](), on=flag, dropout=True) for flag in (False, True))
    dropped = gradient(off, masks=7)
    assert torch.equal(dropped, gradient(on, masks=7))
    assert not torch.equal(dropped, gradient(off))


def test_without_gradients_nothing_is_computed_again() -> None:
    model, calls = make_dropping_model(), list[int]()
    policy = policy_of(model, on=True)
    dict(model.named_modules())["transformer.h.0.ln_1"].register_forward_hook(
        lambda *_: calls.append(1)
    )
    policy.logp(TOKENS)
    assert len(calls) == 1


def test_a_copy_computes_its_own_layers_again() -> None:
    """The critic's backbone is a copy of the policy's."""
    policy = policy_of(make_dropping_model(), on=True)
    critic = Critic(policy.model)
    nn.init.ones_(critic.head.weight)
    critic(TOKENS).sum().backward()
    assert all(p.grad is None for p in policy.model.parameters())
    plain = Critic(policy_of(make_dropping_model(), on=False).model)
    nn.init.ones_(plain.head.weight)
    plain(TOKENS).sum().backward()
    for (name, p), q in zip(critic.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        assert p.grad is None or q.grad is None or torch.equal(p.grad, q.grad), name


def test_it_is_switched_on_once_and_off_again() -> None:
    model = make_dropping_model()
    model.gradient_checkpointing_enable()
    layers = list(model.transformer.h)
    for _ in range(2):
        checkpoint_layers(model, on=True)
        assert all(is_checkpointed(layer) for layer in layers)
        assert not model.is_gradient_checkpointing
    assert layer_calls(Policy(model, make_tokenizer(), 1.0)) == 2
    checkpoint_layers(model, on=False)
    assert not any(is_checkpointed(layer) for layer in layers)
    copied = copy.deepcopy(model)
    assert vars(copied.transformer.h[0]).keys() == vars(layers[0]).keys()


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(UserError, match="Linear has no layers that can be checkpointed"):
        checkpoint_layers(nn.Linear(2, 2), on=True)


@pytest.mark.parametrize("mode", [True, False])
def test_a_model_is_out_of_training_mode_inside_and_as_before_afterwards(mode: bool) -> None:
    model = nn.Sequential(nn.Dropout(0.5)).train(mode)
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training and not model[0].training
        raise ZeroDivisionError
    assert model.training is mode and model[0].training is mode
