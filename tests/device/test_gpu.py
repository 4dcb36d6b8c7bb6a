"""On a GPU: every composition takes steps there, and every part computes what the CPU computes."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.interfaces import Tokens
from rlkit.models.head import Head
from rlkit.models.policy import Policy
from rlkit.registry import build, names
from rlkit.rollout.base import GenerationCall
from rlkit.testing import advantages
from tests.cli import metrics, without_times
from tests.device.chosen import COMPOSITIONS, SETTINGS, UNCHOSEN, with_part, with_setting
from tests.device.parts import (
    SPLITS,
    UNDER,
    check_correction,
    check_loss,
    gradients,
    moved,
)
from tests.device.runs import raw_like, small_run, take_steps, train
from tests.models.test_head import HEADS, TOKENS, model_of
from tests.rollout.test_hf import engine, requests
from tests.tiny import make_policy

pytestmark = pytest.mark.gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6}
"""What the order of float32 sums may change."""


@contextmanager
def gpu() -> Generator[None]:
    """The real device, and what a run takes of it given back."""
    yield
    torch.cuda.empty_cache()


def run_on(raw: Any, folder: Path, changes: Any = {}, checkpoint: Path | None = None) -> Any:  # noqa: B006
    """A small run on the GPU."""
    return small_run(raw, folder, changes, checkpoint, gpu)


def check_on_gpu(trainer: Any) -> None:
    weights = list(trainer.session.policy.model.parameters())
    assert all(weight.device == GPU and bool(weight.isfinite().all()) for weight in weights)


# ---- steps


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_step_of_a_composition(name: str, tmp_path: Path) -> None:
    changes = {"model": {"device": "cuda", "attn_implementation": "sdpa"}}
    found = take_steps(run_on(raw_like(name), tmp_path, changes), check_on_gpu)
    assert "policy/loss" in found, "no optimizer step was taken"


@pytest.mark.parametrize(("kind", "name"), UNCHOSEN)
def test_steps_with_a_part_that_no_composition_has(kind: str, name: str, tmp_path: Path) -> None:
    raw, changes = with_part(kind, name)
    take_steps(run_on(raw, tmp_path, changes), check_on_gpu, steps=2)


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_under_a_setting(name: str, tmp_path: Path) -> None:
    raw, changes = with_setting(name)
    take_steps(run_on(raw, tmp_path, changes), check_on_gpu, steps=2)


def test_a_run_continues_on_the_gpu_from_its_checkpoint(tmp_path: Path) -> None:
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    changes = {"train": {"steps": 2}, "checkpoint": {"every": 1}}
    with run_on(raw_like("remix"), whole, changes) as (trainer, _):
        trainer.run()
    first = whole / "checkpoint-1"
    with run_on(raw_like("remix"), rest, changes, first) as (trainer, _):
        trainer.state.load(first)
        trainer.run()
        check_on_gpu(trainer)
    rows = without_times(metrics(rest))
    assert len(rows) == 2
    for found, expected in zip(rows, without_times(metrics(whole))[-2:], strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5, nan_ok=True)


# ---- parts


def check(parts: Any, **settings: Any) -> None:
    for splits in SPLITS.values():
        expected, found = (gradients(at, splits, parts(), **settings) for at in (CPU, GPU))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), **CLOSE)


@pytest.mark.parametrize("name", names("loss"))
def test_a_loss(name: str) -> None:
    check_loss(check, name)


@pytest.mark.parametrize("under", UNDER)
@pytest.mark.parametrize("name", names("correction"))
def test_a_correction(name: str, under: str) -> None:
    check_correction(check, name, under)


@pytest.mark.parametrize("name", names("anchor"))
def test_the_penalty_of_an_anchor(name: str) -> None:
    check(lambda: (build("loss", "ppo"), (), build("anchor", name, beta=0.1)))


@pytest.mark.parametrize("name", names("advantage"))
def test_an_advantage(name: str) -> None:
    given = advantages.examples(build("advantage", name).needs)
    expected, found = (build("advantage", name)(moved(given, place)) for place in (CPU, GPU))
    torch.testing.assert_close(found.advantage.cpu(), expected.advantage, **CLOSE)
    torch.testing.assert_close(found.returns.cpu(), expected.returns, **CLOSE)


# ---- log-probs


def terms(policy: Policy, tokens: Tokens) -> list[Tensor]:
    """Log-probs, entropies and the gradient of the weights, on the CPU."""
    made = policy.terms(tokens, "gradient")
    weights = torch.linspace(-1, 2, made.logp.numel(), device=made.logp.device)
    loss = (weights.view_as(made.logp) * (made.logp + made.entropy)).sum()
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    found = [made.logp.detach(), made.entropy.detach(), *torch.autograd.grad(loss, trained)]
    return [x.float().cpu() for x in found]


def furthest(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference, over the largest value of its tensor."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-6)) for a, b in pairs)


@pytest.mark.parametrize("fused", [False, True], ids=["full", "fused"])
@pytest.mark.parametrize(
    ("dtype", "autocast", "bound"),
    [
        (torch.float32, None, 1e-5),
        (torch.float32, torch.bfloat16, 0.1),
        (torch.bfloat16, None, 0.1),
    ],
    ids=["float32", "autocast", "bfloat16"],
)
@pytest.mark.parametrize("name", HEADS)
def test_terms_and_gradients_are_those_of_the_cpu(
    name: str, dtype: torch.dtype, autocast: torch.dtype | None, bound: float, *, fused: bool
) -> None:
    """bfloat16 has 8 significant bits, so a few layers differ by some per cent of the largest."""
    model = model_of(name)
    expected = terms(Policy(copy.deepcopy(model), make_policy().tokenizer, 0.8), TOKENS)
    for key, weight in model.to(GPU).named_parameters():
        if "lora_" not in key:  # adapters are float32 whatever the model is
            weight.data = weight.data.to(dtype)
    policy = Policy(model, make_policy().tokenizer, 0.8, autocast=autocast)
    policy.head = Head.of(model) if fused else None
    assert furthest(terms(policy, TOKENS), expected) < bound


def test_float32_is_not_tf32_unless_asked() -> None:
    """A product of 4096 terms: float32 is right within 1e-5 of its size, TF32 within about 3e-4."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 4096, generator=generator) for _ in range(2))
    exact = a.double() @ b.double().t()

    def error() -> float:
        found = (a.to(GPU) @ b.to(GPU).t()).double().cpu()
        return float((found - exact).norm() / exact.norm())

    torch.backends.cuda.matmul.allow_tf32 = False
    plain = error()
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert plain < 1e-5 < error()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


# ---- generation


@pytest.mark.parametrize("batch", [64, 7])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_taken_while_sampling_are_those_of_a_full_forward(
    temperature: float, batch: int
) -> None:
    policy = make_policy(temperature=temperature)
    torch.nn.Module.to(policy.model, GPU)
    asked = requests(policy)
    made = engine(policy, temperature=temperature, generation_batch_size=batch)
    answers = made.generate(GenerationCall(asked, ("t", 1, 0)))
    flat = [(r.prompt.ids, g) for r, group in zip(asked, answers, strict=True) for g in group]
    logp = policy.logp(Tokens.of([p for p, _ in flat], [g.response_ids for _, g in flat]))
    for row, (_, g) in zip(logp, flat, strict=True):
        torch.testing.assert_close(row[: len(g.logp)].cpu(), g.logp.cpu(), atol=2e-5, rtol=0)


def test_generation_repeats_and_depends_on_its_stream_alone() -> None:
    policy = make_policy()
    torch.nn.Module.to(policy.model, GPU)

    def texts(stream: int, batch: int = 64) -> list[Any]:
        made = engine(policy, generation_batch_size=batch)
        answers = made.generate(GenerationCall(requests(policy), ("t", stream, 0)))
        return [[g.response_ids.tolist() for g in group] for group in answers]

    assert texts(1) == texts(1) == texts(1, batch=4) != texts(2)


# ---- memory


def test_updates_that_do_not_fit_are_halved_and_train(tmp_path: Path) -> None:
    """With the device's own error, from a third of what the same step takes at once."""
    changes = {
        "train": {"prompts_per_step": 2048, "micro_batch_tokens": 10**6},
        "rollout": {"max_completion_length": 64, "generation_batch_size": 512},
    }
    whole = torch.cuda.get_device_properties(GPU).total_memory
    with run_on(raw_like("grpo"), tmp_path / "whole", changes) as (trainer, _):
        before = torch.cuda.memory_allocated(GPU)
        torch.cuda.reset_peak_memory_stats(GPU)
        train(trainer)
        taken = torch.cuda.max_memory_allocated(GPU) - before
        assert trainer.count.metrics["memory/micro_batch_tokens"] == 10**6
    with run_on(raw_like("grpo"), tmp_path / "less", changes) as (trainer, _):
        torch.cuda.empty_cache()
        room = torch.cuda.memory_reserved(GPU) + taken / 3
        torch.cuda.set_per_process_memory_fraction(room / whole, GPU)
        try:
            train(trainer)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, GPU)
        check_on_gpu(trainer)
        assert trainer.count.metrics["memory/micro_batch_tokens"] < 10**6
