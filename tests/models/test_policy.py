"""Token log-probs, padding, frozen copies."""

from __future__ import annotations

import pytest
import torch

from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
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
