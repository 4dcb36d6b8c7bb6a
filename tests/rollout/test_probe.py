"""The checks before the first step: which models pass, what they notice, what they leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout import probe
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.precision import TOLERANCE_FLOAT32, rounding_bound
from rlkit.rollout.probe import RESPONSES, check_trainer, ordinary_tokens
from rlkit.rollout.states import Carried
from tests.architectures import FAMILIES, tiny_policy
from tests.tiny import make_policy


def started(policy: Policy, **fields: Any) -> HFRollout:
    made = HFRollout(HFConfig(**fields))
    made.start(policy, seed=0)
    return made


def flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that leave the batch leave the cache in another order than their tokens."""
    right = Carried.select
    monkeypatch.setattr(Carried, "select", lambda self, index: right(self, index.flip(0)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_trains_and_generates_what_a_plain_forward_says(kind: str) -> None:
    """Log-probs of the engine and of a padded batch against a forward of each row alone."""
    policy = tiny_policy(kind)
    check_trainer(policy, 0)
    made = started(policy)
    requests = probe.probe_requests(policy, 1, 0)
    answers = made.generate(GenerationCall(requests, ("t", 1, 0)))
    flat = [(r.ids, g) for r, group in zip(requests, answers, strict=True) for g in group]
    tokens = Tokens.of([ids for ids, _ in flat], [g.response_ids for _, g in flat])
    for row, (ids, g) in zip(policy.logp(tokens), flat, strict=True):
        with torch.no_grad():
            logits = policy.model(torch.cat([ids, g.response_ids])[None]).logits[0]
        alone = logits[len(ids) - 1 : -1].log_softmax(-1).gather(-1, g.response_ids[:, None])[:, 0]
        torch.testing.assert_close(g.logp, alone, atol=1e-4, rtol=0)
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["rwkv", "bart"])
def test_a_model_that_reads_padding_is_refused_for_every_engine(kind: str) -> None:
    """RWKV takes it into its states, BART counts it in its positions."""
    with pytest.raises(UserError, match=r"cannot be trained: .* nats with the padding") as told:
        check_trainer(tiny_policy(kind), 0)
    assert "\n" not in str(told.value)


def test_a_model_that_keeps_its_states_to_itself_is_refused() -> None:
    with pytest.raises(UserError, match="a RecurrentGemmaForCausalLM: it gives no cache"):
        started(tiny_policy("recurrent_gemma"))


@pytest.mark.parametrize("kind", ["gemma3n_text", "mamba", "lfm2"])
def test_states_of_other_rows_are_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy(kind)
    flipped(monkeypatch)
    with pytest.raises(UserError, match=f"cannot generate with a {type(policy.model).__name__}: "):
        started(policy)


def test_states_that_leak_when_rows_leave_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first selection repeats the prompts; only later ones go wrong here."""
    policy, right = tiny_policy("gemma3n_text"), Carried.select

    def select(self: Carried, index: Tensor) -> Carried:
        return right(self, index.flip(0) if len(index) < self.rows else index)

    monkeypatch.setattr(Carried, "select", select)
    with pytest.raises(UserError, match="nats from the trainer's; use rollout=vllm or another"):
        started(policy)


def test_half_precision_has_the_bound_that_follows_from_the_model() -> None:
    policy = make_policy(half=True)
    check_trainer(policy, 0)
    started(policy)
    tokens = Tokens.of([torch.tensor([3, 4])], [torch.tensor([4, 9, 5])])
    bound = rounding_bound(policy, tokens, torch.bfloat16)
    assert bound > TOLERANCE_FLOAT32
    assert probe.excess(policy, lambda attempt: (0.99 * bound, tokens)) is None
    assert probe.excess(policy, lambda attempt: (1.01 * bound, tokens)) == 1.01 * bound


@pytest.mark.parametrize(
    ("differences", "expected"),
    [((5e-4, 9.0), None), ((0.5, 5e-4), None), ((0.5, 0.75), 0.75), ((0.5, float("nan")), "nan")],
)
def test_one_of_two_draws_must_pass(differences: Sequence[float], expected: Any) -> None:
    policy = make_policy()
    tokens = Tokens.of([torch.tensor([3])], [torch.tensor([4])])
    found = probe.excess(policy, lambda attempt: (differences[attempt], tokens))
    assert str(found) == str(expected)


def test_it_draws_nothing_from_the_global_state_and_changes_no_weight() -> None:
    policy = tiny_policy("jamba")
    policy.model.train(True)
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    state = torch.get_rng_state()
    check_trainer(policy, 0)
    made = started(policy)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(weight, before[name]) for name, weight in policy.model.state_dict().items()
    )
    assert policy.model.training and all(p.grad is None for p in policy.model.parameters())
    assert made.ends.tolist() and made.config == HFConfig()


def test_samples_end_when_they_are_full_and_not_at_an_end_token() -> None:
    """Rows leave the batch at known times, whatever the model writes."""
    policy = make_policy()
    lengths: list[list[int]] = []

    class Noting(HFRollout):
        def sample(self, call: GenerationCall) -> Any:
            found = super().sample(call)
            lengths.extend([len(g.response_ids) for g in group] for group in found)
            return found

    everything = tuple("0123456789+=,#")
    Noting(HFConfig(stop=everything)).start(policy, seed=0)
    assert lengths == [[2, 2], [3], [6], [1], [5]] and sorted(RESPONSES) == [1, 2, 3, 5, 6]


def test_what_a_subclass_makes_of_the_samples_is_its_own() -> None:
    class Silent(HFRollout):
        def generate(self, call: GenerationCall) -> Any:
            return []

    Silent(HFConfig()).start(make_policy(), seed=0)


def test_prompts_hold_no_special_tokens() -> None:
    policy = make_policy()
    assert ordinary_tokens(policy).tolist() == list(range(2, 16))
