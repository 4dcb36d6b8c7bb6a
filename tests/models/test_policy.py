"""Token log-probs, padding, frozen copies, and errors when a model cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlkit.config.run import ModelConfig
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.critic import Critic
from rlkit.models.load import load_policy, resolve_device
from rlkit.models.lora import plain_model
from rlkit.models.policy import Policy
from rlkit.training.micro_batches import split_rows
from tests.tiny import make_policy

PROMPTS = [torch.tensor([3, 12, 4, 13]), torch.tensor([5, 13]), torch.tensor([6, 7, 12, 8, 9, 13])]
RESPONSES = [torch.tensor([4, 5, 1]), torch.tensor([9, 9, 9, 9, 1]), torch.tensor([2])]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probs_and_entropy_by_an_unpadded_forward_of_each_row(temperature: float) -> None:
    policy = make_policy(temperature=temperature)
    terms = policy.terms(Tokens.of(PROMPTS, RESPONSES), "value")
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        logits = policy.model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        logp = (logits / temperature).log_softmax(-1)
        n = len(response)
        torch.testing.assert_close(terms.logp[i, :n], logp[range(n), response], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            terms.entropy[i, :n], -(logp.exp() * logp).sum(-1), atol=1e-5, rtol=0
        )
        assert not terms.logp[i, n:].any() and not terms.entropy[i, n:].any()


def test_the_gradient_does_not_depend_on_padding_order_or_split(policy: Policy) -> None:
    """Norm of the difference over the norm stays within 1e-6 in float32."""
    weights = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))

    def gradient(splits: list[list[int]]) -> torch.Tensor:
        policy.model.zero_grad()
        tokens = Tokens.of(PROMPTS, RESPONSES)
        for rows in splits:
            logp = policy.terms(tokens.rows(torch.tensor(rows))).logp
            (logp * weights[rows, : logp.shape[1]]).sum().backward()
        return torch.cat(
            [p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]
        )

    whole = gradient([[0, 1, 2]])
    for splits in ([[2, 0, 1]], [[0], [1], [2]], [[1], [2, 0]]):
        assert (gradient(splits) - whole).norm() <= 1e-6 * whole.norm()


def test_entropy_carries_a_gradient_only_when_asked(policy: Policy) -> None:
    tokens = Tokens.of(PROMPTS, RESPONSES)
    assert not policy.terms(tokens, "value").entropy.requires_grad
    assert policy.terms(tokens, "gradient").entropy.requires_grad
    assert not policy.terms(tokens, "none").entropy.any()


def test_a_frozen_copy_stays_when_the_policy_moves_and_survives_its_state(policy: Policy) -> None:
    tokens = Tokens.of(PROMPTS, RESPONSES)
    frozen, before = policy.freeze(), policy.logp(tokens)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.1)
    assert torch.equal(frozen.logp(tokens), before)
    assert not torch.equal(policy.logp(tokens), before)
    assert torch.equal(policy.restore(frozen.state_dict()).logp(tokens), before)
    assert not any(p.requires_grad for p in frozen.model.parameters())
    assert all(p.requires_grad for p in policy.model.parameters())


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


@pytest.mark.parametrize("budget", [1, 9, 20, 1000])
def test_micro_batches_partition_the_rows_within_the_budget(budget: int) -> None:
    lengths = torch.tensor([5, 9, 2, 9, 1, 7])
    splits = split_rows(lengths, budget)
    assert sorted(torch.cat(splits).tolist()) == list(range(6))
    assert all(len(s) == 1 or len(s) * int(lengths[s].max()) <= budget for s in splits)
    if budget == 1000:
        assert len(splits) == 1


def test_a_saved_policy_loads_back_exactly(policy: Policy, tmp_path: Path) -> None:
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    again = load_policy(ModelConfig(name=str(tmp_path), device="cpu"), str(tmp_path), 1.0)
    tokens = Tokens.of(PROMPTS, RESPONSES)
    assert torch.equal(again.logp(tokens), policy.logp(tokens))
    assert not again.model.training


def test_gradient_checkpointing_gives_the_same_gradient(policy: Policy, tmp_path: Path) -> None:
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    tokens = Tokens.of(PROMPTS, RESPONSES)
    gradients = []
    for flag in (False, True):
        config = ModelConfig(name=str(tmp_path), device="cpu", gradient_checkpointing=flag)
        loaded = load_policy(config, str(tmp_path), 1.0)
        assert loaded.model.is_gradient_checkpointing == flag
        loaded.terms(tokens).logp.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in loaded.model.parameters()]))  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/no/such/folder", "model.name=/no/such/folder cannot be loaded"),
        ("/no/such/file.gguf", "file /no/such/file.gguf does not exist"),
        ("pkg://no_such_package/x.gguf", "package 'no_such_package' is not installed"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_policy(ModelConfig(name=name), name, 1.0)


def test_cuda_without_cuda_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"set model\.device=cpu or auto"):
        resolve_device("cuda:1")
    assert resolve_device("auto") == torch.device("cpu")


def test_a_plain_copy_computes_what_the_model_does_in_half_precision_too() -> None:
    """Rotary frequencies are in no checkpoint and stay float32; nothing is drawn."""
    policy = make_policy()
    for parameter in policy.model.parameters():
        parameter.data = parameter.data.bfloat16()
    before = torch.get_rng_state()
    copied = Policy(plain_model(policy.model, policy.model.state_dict()), policy.tokenizer, 1.0)
    assert torch.equal(torch.get_rng_state(), before)
    tokens = Tokens.of(PROMPTS, RESPONSES)
    assert copied.model.dtype == torch.bfloat16
    assert torch.equal(copied.logp(tokens), policy.logp(tokens))
