"""Low-rank adapters: what is trained, what an anchor holds, what is saved, and what resumes."""

from __future__ import annotations

import copy
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import rlkit
from rlkit.config.run import LoraConfig
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.lora import (
    adapter_weights,
    add_adapter,
    has_adapter,
    load_adapter,
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


def adapted(
    dtype: torch.dtype = torch.float32, targets: str | tuple[str, ...] = "all-linear"
) -> Policy:
    policy = make_policy()
    torch.nn.Module.to(policy.model, dtype)
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=targets)
    return Policy(add_adapter(policy.model, settings), policy.tokenizer, 1.0)


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
    weights = dict(merged(policy.model))
    assert weights.keys() == plain.model.state_dict().keys()
    plain.model.load_state_dict(weights)
    torch.testing.assert_close(plain.logp(some), before, atol=1e-4, rtol=0)
    assert torch.equal(policy.logp(some), before)


DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "targets", ["all-linear", ("q_proj", "embed_tokens"), ("gate_proj", "lm_head")]
)
def test_merged_weights_are_those_of_peft(
    dtype: torch.dtype, targets: str | tuple[str, ...]
) -> None:
    """Bit for bit, under the names and in the order of the plain model."""
    policy = adapted(dtype, targets)
    move(policy)
    copied: Any = copy.deepcopy(policy.model)
    theirs = copied.merge_and_unload().state_dict()
    ours = dict(merged(policy.model))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert {value.dtype for value in ours.values()} == {dtype}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_merged_weights_of_layers_that_are_stored_transposed_are_those_of_peft() -> None:
    """GPT-2's Conv1D, whose weight is [in, out]."""
    torch.manual_seed(0)
    small = GPT2Config(vocab_size=16, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    model = add_adapter(GPT2LMHeadModel(small), LoraConfig(r=2))
    for p in parameters(model).values():
        torch.nn.init.normal_(p)
    theirs = copy.deepcopy(model).merge_and_unload().state_dict()
    ours = dict(merged(model))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.parametrize("dtype", DTYPES)
def test_merging_leaves_the_model_as_it_was_to_the_bit(dtype: torch.dtype) -> None:
    """The frozen weights and the adapters, also if a reader stops in the middle."""
    policy = adapted(dtype)
    move(policy)
    before = copy.deepcopy(policy.model.state_dict())
    for _ in range(3):
        list(merged(policy.model))
        next(merged(policy.model))
    after = policy.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_merging_holds_one_layer_at_a_time() -> None:
    """No storage of a merged layer is alive once the next one is read."""
    policy = adapted()
    held = {p.data_ptr() for p in policy.model.parameters()}
    copies: list[weakref.ref[torch.Tensor]] = []
    most = 0
    for _, tensor in merged(policy.model):
        if tensor.data_ptr() not in held:
            copies.append(weakref.ref(tensor))
        del tensor
        most = max(most, sum(ref() is not None for ref in copies))
    assert len(copies) == 14 and most <= 1


def test_an_adapter_on_tied_weights_is_refused() -> None:
    """The plain model of its merged weights would have another output layer."""
    policy = make_policy(tie_word_embeddings=True)
    with pytest.raises(UserError, match=r"target_modules=.*embed_tokens.*tied"):
        add_adapter(policy.model, LoraConfig(r=2, target_modules=("q_proj", "embed_tokens")))


def start(out: str, *args: str, cwd: Path) -> Path:
    result = run(*SMALL, *LORA, *args, f"output_dir={out}", cwd=cwd)
    assert result.status == 0, result.err
    return cwd / out


@pytest.mark.slow
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


@pytest.mark.slow
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
    asked = ("task=arithmetic", "eval.problems=32", "rollout.max_completion_length=14")
    evaluated = command("rlkit.__main__", "eval", str(folder), *asked, cwd=tmp_path)
    assert evaluated.status == 0, evaluated.err
    done = command("rlkit.__main__", "merge", str(out), "merged", cwd=elsewhere)
    assert done.status == 0, done.err
    plain: Any = AutoModelForCausalLM.from_pretrained(elsewhere / "merged")
    assert not has_adapter(plain)
    again = command("rlkit.__main__", "eval", "merged", *asked, cwd=elsewhere)
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


def test_adapters_of_a_model_in_half_precision_are_float32(tmp_path: Path) -> None:
    """So they need no masters, and are saved as they are."""
    model = add_adapter(make_policy(half=True).model, LoraConfig(r=2))
    with torch.no_grad():
        for adapter in parameters(model).values():
            adapter.add_(1e-6)
    model.save_pretrained(tmp_path)
    again = load_adapter(make_policy(half=True).model, tmp_path)
    for found in (model, again):
        assert {p.dtype for p in parameters(found).values()} == {torch.float32}
        assert found.dtype == torch.bfloat16
        trained = {name for name, p in found.named_parameters() if p.requires_grad}
        assert trained == parameters(found).keys()
    for name, value in parameters(again).items():
        assert torch.equal(value, parameters(model)[name])


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
