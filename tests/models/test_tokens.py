"""Matrix products in half precision while weights, log-probs and gradients stay float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlkit.batch import Request
from rlkit.interfaces import Tokens
from rlkit.models.critic import Critic
from rlkit.models.policy import Policy
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from tests.certain import HUMBLE
from tests.cli import SMALL, metrics, run
from tests.tiny import make_policy, make_prompts

TOKENS = Tokens.of(
    [torch.tensor([3, 4, 5]), torch.tensor([3])], [torch.tensor([5, 6, 7, 1]), torch.tensor([8, 1])]
)


@pytest.fixture
def half() -> Policy:
    policy = make_policy()
    policy.autocast = torch.bfloat16
    return policy


def products(policy: Policy) -> set[torch.dtype]:
    """The types a layer gives while it computes log-probs."""
    seen = set()
    layer = policy.model.model.layers[0].mlp.down_proj
    handle = layer.register_forward_hook(lambda *a: seen.add(a[2].dtype))
    policy.logp(TOKENS)
    handle.remove()
    return seen


def test_products_are_bfloat16_and_the_rest_float32(half: Policy) -> None:
    assert products(half) == {torch.bfloat16} and products(make_policy()) == {torch.float32}
    terms = half.terms(TOKENS, "gradient")
    (terms.logp.sum() + terms.entropy.sum()).backward()
    assert terms.logp.dtype == terms.entropy.dtype == torch.float32
    assert {p.grad.dtype for p in half.model.parameters() if p.grad is not None} == {torch.float32}
    exact = make_policy().logp(TOKENS)
    assert 0 < (half.logp(TOKENS) - exact).abs().max() < 0.2
    assert not half.batch_invariant and make_policy().batch_invariant


def test_a_frozen_copy_computes_as_the_policy_did(half: Policy) -> None:
    assert torch.equal(half.freeze().logp(TOKENS), half.logp(TOKENS))
    restored = half.restore(dict(half.model.state_dict()))
    assert torch.equal(restored.logp(TOKENS), half.logp(TOKENS))


def test_generation_uses_the_same_precision(half: Policy) -> None:
    """Cached and whole forwards round differently in bfloat16; float32 would be nearer to 1e-6."""
    engine = HFRollout(HFConfig(max_completion_length=6))
    engine.start(half, seed=0)
    prompts = make_prompts(half, ["1+1=", "20+3="])
    found = engine.generate(
        GenerationCall([Request(prompt=p, n=4) for p in prompts], ("rollout", 1, 0))
    )
    flat = [(p, g) for p, group in zip(prompts, found, strict=True) for g in group]
    tokens = Tokens.of([p.ids for p, _ in flat], [g.response_ids for _, g in flat])
    logp, exact = half.logp(tokens), make_policy().logp(tokens)
    own = torch.cat([logp[i, : len(g.logp)] - g.logp for i, (_, g) in enumerate(flat)])
    other = torch.cat([exact[i, : len(g.logp)] - g.logp for i, (_, g) in enumerate(flat)])
    assert other.abs().max() > 1e-4, "generated in bfloat16"
    assert own.abs().max() < 0.2


def test_the_critic_follows(half: Policy) -> None:
    critic = Critic(half.model, torch.bfloat16)
    torch.nn.init.ones_(critic.head.weight)
    whole = Critic(half.model)
    torch.nn.init.ones_(whole.head.weight)
    assert 0 < (critic(TOKENS) - whole(TOKENS)).abs().max() < 1


@pytest.mark.slow
def test_the_trainer_takes_its_own_log_probs_and_logs_the_difference(tmp_path: Path) -> None:
    """What an engine says in bfloat16 is not what the trainer computes, here by half a nat: by its
    log-probs the ratio would start at 1.65."""
    chosen = ("algorithm=grpo", "train.minibatches=1", HUMBLE, "model.autocast=bfloat16")
    done = run(*SMALL, *chosen, "output_dir=run", cwd=tmp_path)
    assert done.status == 0, done.err
    step = metrics(tmp_path / "run")[1]
    assert step["off_policy/engine_difference_mean"] == pytest.approx(0.5, abs=0.05)
    assert step["policy/ratio_mean"] == pytest.approx(1, abs=0.05)
    assert run(*SMALL, "model.autocast=int8", cwd=tmp_path).status == 2
