"""The policy's draws at every place of a response are those of the engine that samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.batch import Request
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout import verify
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout, numbered_draws
from rlkit.rollout.sampling import KEPT, Choice, Sampler
from tests.tiny import make_policy, make_prompts

TEXTS = ["1+2=", "12+345=", "7="]
STREAM = ("t", 1, 0)


def sampled(policy: Policy, **fields: Any) -> tuple[list[torch.Tensor], list[Generation]]:
    """Prompts and responses, two to each, numbered from 0."""
    engine = HFRollout(HFConfig(max_completion_length=9, **fields))
    engine.start(policy, seed=3)
    asked = [Request(prompt=p, n=2) for p in make_prompts(policy, TEXTS)]
    found = engine.generate(GenerationCall(asked, STREAM, numbers=range(6)))
    return [r.prompt.ids for r in asked for _ in range(2)], [g for group in found for g in group]


def drawn(policy: Policy, prompts: Any, responses: Any, **fields: Any) -> list[Choice]:
    c = HFConfig(**fields)
    uniforms = [
        torch.from_numpy(numbered_draws(3, STREAM, number, len(response)))
        for number, response in enumerate(responses)
    ]
    sampler = Sampler(c.temperature, c.top_p, c.top_k, greedy=False)
    return verify.draws_at(policy, prompts, responses, uniforms, sampler)


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.7}, {"top_k": 4, "top_p": 0.9}])
@pytest.mark.parametrize("tokens", [1, 40, 4096])
def test_at_its_own_numbers_a_response_is_drawn_again(
    fields: dict[str, Any], tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batch: one sequence at a time, some, or all."""
    monkeypatch.setattr(verify, "TOKENS", tokens)
    monkeypatch.setattr(verify, "PLACES", 5)
    policy = make_policy(temperature=fields.get("temperature", 1.0))
    prompts, answers = sampled(policy, **fields)
    found = drawn(policy, prompts, [g.response_ids for g in answers], **fields)
    for choice, answer in zip(found, answers, strict=True):
        assert torch.equal(choice.token, answer.response_ids)
        torch.testing.assert_close(choice.logp, answer.logp, atol=1e-5, rtol=0)
        assert (choice.kept is None) == (KEPT not in answer.extras)
        if choice.kept is not None:
            kept = torch.as_tensor(answer.extras[KEPT])
            torch.testing.assert_close(choice.kept, kept, atol=1e-5, rtol=0)


def test_a_draw_is_after_the_beginning_of_the_given_response() -> None:
    """The first draw knows nothing of the response, the second its first token alone."""
    policy = make_policy()
    prompts, answers = sampled(policy)
    changed = [g.response_ids.clone() for g in answers]
    for ids in changed:
        ids[0] = 2 + (ids[0] + 1) % 14
    before = drawn(policy, prompts, [g.response_ids for g in answers])
    after = drawn(policy, prompts, changed)
    assert all(torch.equal(a.token[0], b.token[0]) for a, b in zip(before, after, strict=True))
    assert any(not torch.equal(a.token, b.token) for a, b in zip(before, after, strict=True))


def test_the_mode_of_the_policy_stays_and_nothing_drops() -> None:
    policy = make_policy(attention_dropout=0.5)
    prompts, answers = sampled(policy)
    policy.model.train()
    found = drawn(policy, prompts, [g.response_ids for g in answers])
    assert policy.model.training
    assert all(torch.equal(a.token, g.response_ids) for a, g in zip(found, answers, strict=True))


@pytest.mark.slow
def test_a_forward_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    prompts, answers = sampled(policy)
    responses = [g.response_ids for g in answers]
    expected = drawn(policy, prompts, responses)
    real, rows, most = policy.model.forward, list[int](), 2

    def limited(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(kwargs["input_ids"]))
        if rows[-1] > most:
            raise torch.OutOfMemoryError("no memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(policy.model, "forward", limited)
    found = drawn(policy, prompts, responses)
    assert rows == [6, 3, 1, 2, 3, 1, 2]
    assert all(torch.equal(a.token, b.token) for a, b in zip(found, expected, strict=True))
    most = 0
    with pytest.raises(UserError, match="out of memory reading one draft"):
        drawn(policy, prompts, responses)


@pytest.mark.parametrize(
    ("prompts", "responses", "ends"),
    [
        ([500, 500, 500, 500], [500, 1500, 2500, 8500], [2, 3, 4]),
        ([1000, 20, 1000], [20, 1000, 20], [2, 3]),  # padded apart: 2000 tokens each
        ([], [], []),
    ],
)
def test_batches_are_of_consecutive_sequences_as_long_as_allowed_with_padding(
    prompts: list[int], responses: list[int], ends: list[int]
) -> None:
    found = verify.batches([torch.zeros(n) for n in prompts], [torch.zeros(n) for n in responses])
    assert list(found) == [slice(*both) for both in zip([0, *ends], ends, strict=False)]


@pytest.mark.slow
def test_log_probs_that_do_not_fit_are_read_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    prompts, answers = sampled(policy)
    responses = [g.response_ids for g in answers]
    expected = verify.scores_of(policy, prompts, responses)
    real, rows = policy.logp, list[int]()

    def limited(tokens: Tokens) -> Any:
        rows.append(len(tokens.response_lengths))
        if rows[-1] > 2:
            raise torch.OutOfMemoryError("no memory")
        return real(tokens)

    monkeypatch.setattr(policy, "logp", limited)
    found = verify.scores_of(policy, prompts, responses)
    assert rows == [6, 3, 1, 2, 3, 1, 2]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.logp, b.logp, atol=1e-5, rtol=0)


def test_a_responses_own_log_probs_are_the_policys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TOKENS", 20)
    policy = make_policy(attention_dropout=0.5)
    prompts, answers = sampled(policy)
    policy.model.train()
    found = verify.scores_of(policy, prompts, [g.response_ids for g in answers])
    assert policy.model.training
    for choice, answer in zip(found, answers, strict=True):
        assert torch.equal(choice.token, answer.response_ids) and choice.kept is None
        torch.testing.assert_close(choice.logp, answer.logp, atol=1e-5, rtol=0)
