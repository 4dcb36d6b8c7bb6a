"""The layouts of a batch: the same log-probs and gradients, and no token more than needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from rlkit.interfaces import Tokens
from rlkit.models.critic import Critic
from rlkit.models.policy import Policy
from rlkit.models.recompute import checkpoint_layers
from rlkit.models.rows import Layout, computed, model_rows
from tests.architectures import tiny_policy
from tests.tiny import make_policy

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
CPU = torch.device("cpu")


def small() -> Tokens:
    """Two prompts; the first has two answers, of two tokens and of one."""
    p, q = torch.tensor([3, 4, 5]), torch.tensor([6, 7])
    return Tokens.of(
        [p, q, p], [torch.tensor([8, 9]), torch.tensor([10, 11, 12]), torch.tensor([2])]
    )


def mixed(longest: int = 25) -> Tokens:
    """Groups of several sizes, equal prompts in two places, an empty response, long ones."""
    rng = torch.Generator().manual_seed(1)

    def draw(length: int) -> Tensor:
        return torch.randint(3, 15, (length,), generator=rng)

    sizes = ((5, (3, 8, 2)), (5, (1, 7)), (2, (12,)), (9, (2, 4, 0)), (1, (longest, 5, 6)))
    pairs = [(prompt, draw(t)) for p, ts in sizes for prompt in [draw(p)] for t in ts]
    order = torch.randperm(len(pairs), generator=rng).tolist()
    return Tokens.of([pairs[i][0] for i in order], [pairs[i][1] for i in order])


def test_a_shared_row_holds_each_prompt_once_and_what_precedes_each_token() -> None:
    rows = model_rows(small(), "shared_prefix", CPU)
    assert rows.inputs["input_ids"].tolist() == [[3, 4, 5, 6, 7, 8, 10, 11]]
    assert rows.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 3, 2, 3]]
    assert rows.at.tolist() == [2, 5, 4, 6, 7, 2], "first tokens follow from their prompt's last"
    assert rows.ids.tolist() == [8, 9, 10, 11, 12, 2]
    assert rows.spread(torch.arange(1.0, 7)).tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]


def test_a_packed_row_holds_whole_sequences_one_after_the_other() -> None:
    rows = model_rows(small(), "packed", CPU)
    assert rows.inputs["input_ids"].tolist() == [[3, 4, 5, 8, 6, 7, 10, 11, 3, 4, 5]]
    assert rows.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]]
    assert rows.at.tolist() == [2, 3, 5, 6, 7, 10]


def unanswered() -> Tokens:
    return Tokens.of([torch.tensor([3, 4, 5])], [torch.zeros(0, dtype=torch.int64)])


@pytest.mark.parametrize("make", [small, mixed, unanswered])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tokens_of_a_layout_are_counted(make: Callable[[], Tokens], layout: Layout) -> None:
    tokens = make()
    assert computed(tokens, layout) == model_rows(tokens, layout, CPU).inputs["input_ids"].numel()


def read(policy: Policy, layout: Layout, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies, and the gradient of a mixture of them."""
    policy.layout = layout
    policy.model.zero_grad()
    terms = policy.terms(tokens, "gradient")
    weight = torch.linspace(0.1, 1, terms.logp.numel()).view_as(terms.logp)
    ((terms.logp + 0.3 * terms.entropy) * weight).sum().backward()
    gradients = [
        torch.zeros_like(p) if p.grad is None else p.grad for p in policy.model.parameters()
    ]
    return torch.cat([terms.logp, terms.entropy]).detach(), torch.cat(
        [g.flatten() for g in gradients]
    )


SUMMED = 1e-5
"""Gradients whose float32 sums run in another order; a wrong mask is a thousand times farther."""


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def with_checkpoints() -> Policy:
    policy = make_policy()
    checkpoint_layers(policy.model, on=True)
    return policy


POLICIES: dict[str, Callable[[], Policy]] = {
    "sdpa": make_policy,
    "eager": lambda: make_policy(attn_implementation="eager"),
    "fewer key heads": lambda: make_policy(num_key_value_heads=1),
    "recomputed": with_checkpoints,
    "temperature": lambda: make_policy(temperature=0.6),
    **{kind: lambda kind=kind: tiny_policy(kind) for kind in ("gemma2", "gpt_oss", "mistral")},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", POLICIES)
def test_responses_that_share_a_prompt_have_the_log_probs_and_gradients_of_rows(name: str) -> None:
    """gemma2 caps and gpt_oss adds sinks; their windows, and mistral's, are of four tokens."""
    policy = POLICIES[name]()
    expected, gradient = read(policy, "padded", mixed())
    found, shared = read(policy, "shared_prefix", mixed())
    assert apart(found, expected) < 1e-6
    assert apart(shared, gradient) < SUMMED


def test_packed_sequences_have_the_log_probs_and_gradients_of_rows() -> None:
    policy = make_policy()
    expected, gradient = read(policy, "padded", mixed())
    found, packed = read(policy, "packed", mixed())
    assert apart(found, expected) < 1e-6
    assert apart(packed, gradient) < SUMMED


def test_the_model_attends_as_before_afterwards_whatever_happened() -> None:
    policy = make_policy()
    before = policy.model.config._attn_implementation
    read(policy, "shared_prefix", mixed())
    assert policy.model.config._attn_implementation == before
    policy.model.register_forward_hook(_fail)
    with pytest.raises(ZeroDivisionError):
        policy.terms(mixed())
    assert policy.model.config._attn_implementation == before


def _fail(*_: Any) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("layout", ["packed", "shared_prefix"])
def test_a_critic_values_the_same_states(layout: Layout) -> None:
    policy = make_policy()
    kinds: tuple[Layout, ...] = ("padded", layout)
    critics = [Critic(policy.model, None, kind) for kind in kinds]
    values = []
    for critic in critics:
        torch.nn.init.ones_(critic.head.weight)
        found = critic(mixed())
        found.square().sum().backward()
        values.append(found.detach())
    assert apart(values[1], values[0]) < 1e-6
    for one, other in zip(critics[0].parameters(), critics[1].parameters(), strict=True):
        if one.grad is not None and other.grad is not None:
            assert apart(other.grad, one.grad) < 1e-5


def test_attention_does_the_work_of_the_sequences_and_not_of_the_row() -> None:
    """Scores of a row of n groups are n times those of one: a mask of the row would square them."""
    sizes = []
    for groups in (2, 8):
        prompts = [torch.full((4,), 3 + g) for g in range(groups) for _ in range(3)]
        tokens = Tokens.of(prompts, [torch.full((6,), 4)] * len(prompts))
        blocks = model_rows(tokens, "shared_prefix", CPU).blocks
        assert blocks is not None
        scores = sum(b.count * b.length**2 for b in blocks.prompts)
        scores += sum(len(b.prompt) * b.width * (4 + b.width) for b in blocks.responses)
        sizes.append(scores)
    assert sizes[1] == 4 * sizes[0]


def test_a_long_response_is_not_padded_to_by_short_ones() -> None:
    prompt = torch.tensor([3, 4])
    tokens = Tokens.of([prompt] * 5, [torch.full((t,), 5) for t in (41, 3, 3, 2, 3)])
    blocks = model_rows(tokens, "shared_prefix", CPU).blocks
    assert blocks is not None
    assert [(b.width, len(b.prompt)) for b in blocks.responses] == [(40, 1), (2, 4)]
