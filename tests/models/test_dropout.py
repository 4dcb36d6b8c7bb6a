"""Dropout: never in values, in an update's gradient if asked, by masks that a seed decides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.config.run import LoraConfig, ModelConfig, RunConfig, TrainConfig
from rlkit.interfaces import Tokens
from rlkit.models.dropout import dropped_modules
from rlkit.models.load import given_policy
from rlkit.models.policy import Policy
from rlkit.training.update import Updater
from tests.steps import parts, prepared, rollout
from tests.tiny import make_dropping_model, make_policy, make_tokenizer

TOKENS = Tokens.of(
    [torch.tensor([3, 12, 4, 13]), torch.tensor([5, 13])],
    [torch.tensor([4, 5, 1]), torch.tensor([9, 9, 9, 9, 1])],
)


def dropping(*, own: bool = False, adapters: float = 0.0, rank: int = 0) -> Policy:
    """A model that drops everywhere in training mode, with adapters if they have a rank."""
    lora = LoraConfig(r=rank, dropout=adapters, target_modules=("q_proj",))
    config = ModelConfig(device="cpu", dropout=own, lora=lora)
    model = make_policy(attention_dropout=0.5).model if rank else make_dropping_model(0.5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        policy = given_policy(config, (model, make_tokenizer()), 1.0)
        for name, p in policy.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p)
    return policy


def gradient(policy: Policy, masks: int | None) -> Tensor:
    policy.model.zero_grad()
    policy.terms(TOKENS, masks=masks).logp.sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


ASKED = [{"own": True}, {"adapters": 0.5, "rank": 2}, {"own": True, "adapters": 0.5, "rank": 2}]


@pytest.mark.parametrize("asked", ASKED)
def test_the_values_are_those_without_dropout_and_the_gradient_is_not(
    asked: dict[str, Any],
) -> None:
    policy = dropping(**asked)
    plain = gradient(policy, None)
    assert torch.equal(policy.terms(TOKENS, masks=3).logp, policy.logp(TOKENS))
    entropy = policy.terms(TOKENS, "gradient", masks=3).entropy
    assert torch.equal(entropy, policy.terms(TOKENS, "value").entropy) and entropy.requires_grad
    assert (gradient(policy, 3) - plain).norm() > 0.01 * plain.norm()


def test_the_gradient_is_that_of_ordinary_dropout_under_the_seeded_masks() -> None:
    policy = dropping(own=True)
    found = gradient(policy, 5)
    policy.model.zero_grad()
    policy.model.train()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        policy.terms(TOKENS).logp.sum().backward()
    grads = [p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]
    torch.testing.assert_close(found, torch.cat(grads), rtol=0, atol=0)


@pytest.mark.parametrize("asked", [{}, {"rank": 2}])
def test_nothing_drops_unless_asked(asked: dict[str, Any]) -> None:
    policy = dropping(**asked)
    assert policy.dropout.modules == ()
    assert torch.equal(gradient(policy, 3), gradient(policy, None))


def test_lora_dropout_leaves_the_models_own_alone() -> None:
    policy = dropping(adapters=0.5, rank=2)
    modules = policy.dropout.modules
    assert len(modules) == 2 and all(m.p == 0.5 for m in modules)
    assert set(modules) == set(dropped_modules(policy.model, own=False))


@pytest.mark.parametrize("asked", ASKED)
def test_masks_repeat_with_their_seed_and_leave_the_generators_alone(asked: dict[str, Any]) -> None:
    policy = dropping(**asked)
    before = torch.get_rng_state()
    first, again, other = (gradient(policy, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in policy.model.modules())


def updates(
    policy: Policy, steps: int = 2, passes: int = 2
) -> tuple[list[dict[str, float]], Tensor]:
    """The metrics of some steps on fresh data and the weights after them."""
    chosen = parts(loss="grpo")
    train = TrainConfig(prompts_per_step=4, learning_rate=1e-2, micro_batch_tokens=64)
    updater = Updater(RunConfig(output_dir="x", train=train), policy, chosen, 6)
    found = []
    for step in range(1, steps + 1):
        batch = prepared(policy, rollout(policy, step), step, chosen)
        found.append(dict(updater.run(batch, passes, step).metrics))
    return found, torch.cat([p.detach().flatten() for p in policy.model.parameters()])


@pytest.mark.parametrize("asked", [{}, *ASKED])
def test_the_first_update_on_fresh_data_has_ratio_1_and_clips_nothing(
    asked: dict[str, Any],
) -> None:
    metrics, _ = updates(dropping(**asked), steps=1, passes=1)
    assert metrics[0]["policy/ratio_mean"] == pytest.approx(1, abs=1e-5)
    assert metrics[0]["policy/clip_fraction"] == 0
    assert metrics[0]["off_policy/kl"] == pytest.approx(0, abs=1e-6)


def test_updates_with_dropout_repeat_bit_for_bit_and_differ_from_those_without() -> None:
    (first, a), (second, b) = (updates(dropping(adapters=0.5, rank=2)) for _ in range(2))
    assert first == second and torch.equal(a, b)
    assert not torch.equal(updates(dropping(rank=2))[1], a)


def test_each_micro_batch_and_pass_has_masks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = dropping(own=True)
    seeds: list[int] = []
    drawn = type(policy.dropout).drawn

    def noted(dropout: Any, seed: int, device: torch.device) -> Any:
        seeds.append(seed)
        return drawn(dropout, seed, device)

    monkeypatch.setattr(type(policy.dropout), "drawn", noted)
    updates(policy, steps=2, passes=2)
    assert len(seeds) == len(set(seeds)) >= 8
