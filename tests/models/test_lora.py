"""Low-rank adapters: what is trained, what an anchor holds, what is saved, and what resumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import rlkit
from rlkit.config.run import LoraConfig
from rlkit.interfaces import Tokens
from rlkit.models.lora import (
    adapter_weights,
    add_adapter,
    has_adapter,
    merged,
    parameters,
    plain_model,
)
from rlkit.models.policy import FrozenAdapter, Policy
from tests.certain import HALF
from tests.cli import SMALL, command, metrics, run, without_times
from tests.steps import rollout
from tests.tiny import make_policy

LORA = ("model.lora.r=4", "train.learning_rate=1e-3")


def adapted() -> Policy:
    policy = make_policy()
    torch.manual_seed(0)
    return Policy(add_adapter(policy.model, LoraConfig(r=2)), policy.tokenizer, 1.0)


def move(policy: Policy, size: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in parameters(policy.model).values():
            p.add_(size * torch.randn(p.shape, generator=generator))


def tokens(policy: Policy) -> Tokens:
    groups = rollout(policy, step=1)
    samples = [(g.prompt.ids, s.response_ids) for g in groups for s in g.samples]
    return Tokens.of([p for p, _ in samples], [r for _, r in samples])


def test_new_adapters_add_nothing_and_alone_are_trained() -> None:
    plain, policy = make_policy(), adapted()
    some = tokens(plain)
    assert torch.equal(policy.logp(some), plain.logp(some))
    trained = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert trained == set(parameters(policy.model)) and trained


def test_the_first_base_is_the_model_itself_and_costs_no_copy() -> None:
    plain, policy = make_policy(), adapted()
    base = policy.freeze()
    move(policy)
    some = tokens(plain)
    assert isinstance(base, FrozenAdapter) and base.model is policy.model
    assert torch.equal(base.logp(some), plain.logp(some))
    assert (policy.logp(some) - base.logp(some)).abs().max() > 0.01


def test_a_later_base_is_a_snapshot_that_leaves_the_policy_as_it_was() -> None:
    policy = adapted()
    some = tokens(policy)
    move(policy)
    then = policy.logp(some)
    base = policy.freeze()
    move(policy)
    now, weights = policy.logp(some), adapter_weights(policy.model)
    assert torch.equal(base.logp(some), then)
    assert torch.equal(policy.logp(some), now)
    assert all(torch.equal(weights[n], p) for n, p in parameters(policy.model).items())
    again = policy.restore(base.state_dict())
    assert torch.equal(again.logp(some), then)


def test_merged_weights_compute_the_same() -> None:
    plain, policy = make_policy(), adapted()
    move(policy)
    some = tokens(plain)
    before = policy.logp(some)
    weights = merged(policy.model)
    assert weights.keys() == plain.model.state_dict().keys()
    plain.model.load_state_dict(weights)
    torch.testing.assert_close(plain.logp(some), before, atol=1e-4, rtol=0)
    torch.testing.assert_close(policy.logp(some), before, atol=1e-4, rtol=0)


def start(out: str, *args: str, cwd: Path) -> Path:
    result = run(*SMALL, *LORA, *args, f"output_dir={out}", cwd=cwd)
    assert result.status == 0, result.err
    return cwd / out


@pytest.mark.parametrize("algorithm", ["remix", "ppo"])
def test_a_run_with_adapters_resumes_exactly(algorithm: str, tmp_path: Path) -> None:
    """ReMix over its rebirth: the base changes from the bare model to a snapshot.

    Its updates drop, by masks that the step decides.
    """
    common = [f"algorithm={algorithm}", "train.steps=4", "checkpoint.every=1", "checkpoint.keep=9"]
    if algorithm == "remix":
        common += ["schedule.at=1", "anchor.start=0", "model.lora.dropout=0.3"]
    whole = start("whole", *common, cwd=tmp_path)
    shutil.copytree(whole, tmp_path / "part")
    for step in (3, 4):
        shutil.rmtree(tmp_path / "part" / f"checkpoint-{step}")
    part = start("part", *common, "resume=auto", cwd=tmp_path)
    assert without_times(metrics(part)) == without_times(metrics(whole))
    a, b = (load_file(f / "checkpoint-4" / "adapter_model.safetensors") for f in (whole, part))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_checkpoint_holds_the_adapters_and_can_be_evaluated_and_merged(tmp_path: Path) -> None:
    """From another folder too, though the reward is named by a path beside the run."""
    (tmp_path / "mine.py").write_text(
        "def mine(completions):\n    return [0.0] * len(completions)\n"
    )
    (elsewhere := tmp_path / "elsewhere").mkdir()
    own = "reward=[./mine.py:mine]"
    out = start("out", "algorithm=grpo", "train.steps=2", own, cwd=tmp_path)
    folder = out / "checkpoint-2"
    assert (folder / "adapter_config.json").exists()
    assert not (folder / "model.safetensors").exists()
    evaluated = command("rlkit.__main__", "eval", str(folder), "eval.problems=32", cwd=tmp_path)
    assert evaluated.status == 0, evaluated.err
    done = command("rlkit.__main__", "merge", str(out), "merged", cwd=elsewhere)
    assert done.status == 0, done.err
    plain: Any = AutoModelForCausalLM.from_pretrained(elsewhere / "merged")
    assert not has_adapter(plain)
    again = command("rlkit.__main__", "eval", "merged", "eval.problems=32", cwd=elsewhere)
    assert json.loads(again.out) == pytest.approx(json.loads(evaluated.out))
    refused = command("rlkit.__main__", "merge", "merged", "x", cwd=elsewhere)
    assert refused.status == 2 and len(refused.err.splitlines()) == 1


def test_wrong_layers_are_one_line(tmp_path: Path) -> None:
    out = run(*SMALL, *LORA, "model.lora.target_modules=[nothing]", "output_dir=out", cwd=tmp_path)
    assert out.status == 2 and "model.lora.target_modules" in out.err
    assert len(out.err.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_an_anchor_under_adapters_is_the_one_without(tmp_path: Path) -> None:
    """KL to the base is 0 before the first update, whatever the adapters' random half."""
    chosen = ("algorithm=grpo", "anchor=base", "train.minibatches=1", HALF)
    rows = metrics(start("out", *chosen, cwd=tmp_path))
    assert rows[1]["anchor/kl"] == pytest.approx(0, abs=1e-6)
    assert rows[2]["anchor/kl"] > 0
    assert rlkit.build("anchor", "base").config.beta > 0


PROMPTS = [torch.tensor([3, 12, 4, 13]), torch.tensor([5, 13]), torch.tensor([6, 7, 12, 8, 9, 13])]


RESPONSES = [torch.tensor([4, 5, 1]), torch.tensor([9, 9, 9, 9, 1]), torch.tensor([2])]


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
