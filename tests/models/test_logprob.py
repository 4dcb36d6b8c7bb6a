"""Log-probs and entropies in blocks are those of full logits, and so are their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlkit.models.logits import EntropyMode, Projection
from rlkit.models.logprob import chunked_terms

N, V, H = 12, 23, 5
Terms = Callable[[Tensor, Tensor, Projection, float, EntropyMode], tuple[Tensor, Tensor]]


def plain(
    hidden: Tensor, ids: Tensor, by: Projection, temperature: float, entropy: EntropyMode
) -> tuple[Tensor, Tensor]:
    """The definition, with full logits."""
    x = hidden @ by.weight.t()
    for u, v in by.low_rank:
        x = x + u @ v.t()
    x = by.scale * (x if by.bias is None else x + by.bias)
    x = x if by.softcap is None else by.softcap * (x / by.softcap).tanh()
    logp = (x.double() / temperature).log_softmax(-1)
    spread = -(logp.exp() * logp).sum(-1)
    spread = {"none": 0 * spread, "value": spread.detach(), "gradient": spread}[entropy]
    return logp.gather(1, ids[:, None]).squeeze(1), spread


def in_blocks(size: int) -> Terms:
    """In blocks of this many bytes."""
    return partial(chunked_terms, chunk_bytes=size)


def made(dtype: torch.dtype = torch.float32, **fields: Any) -> tuple[Tensor, Tensor, Projection]:
    """Random hidden states, ids and projection, all with gradients."""
    draw = torch.Generator().manual_seed(0)
    sizes = {"hidden": (N, H), "weight": (V, H), "bias": (V,), "u": (N, 2), "v": (V, 2)}
    drawn = {
        name: torch.randn(size, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
        for name, size in sizes.items()
    }
    ids = torch.randint(V, (N,), generator=draw)
    by = Projection(weight=drawn["weight"])
    if fields.pop("bias", False):
        by = replace(by, bias=drawn["bias"])
    if fields.pop("low_rank", False):
        by = replace(by, low_rank=((drawn["u"], drawn["v"]),))
    return drawn["hidden"], ids, replace(by, **fields)


def leaves(hidden: Tensor, by: Projection) -> list[Tensor]:
    every = (hidden, by.weight, by.bias, *(x for pair in by.low_rank for x in pair))
    return [x for x in every if x is not None and x.requires_grad]


def measured(
    terms: Terms,
    case: tuple[Tensor, Tensor, Projection],
    temperature: float,
    entropy: EntropyMode,
) -> list[Tensor]:
    """Values, and gradients of a sum with unequal weights."""
    hidden, ids, by = case
    logp, spread = terms(hidden, ids, by, temperature, entropy)
    weights = torch.linspace(-1, 2, N, dtype=logp.dtype)
    loss = (weights * logp).sum()
    if entropy == "gradient":
        loss = loss + (weights.flip(0) * spread).sum()
    return [logp.detach(), spread.detach(), *torch.autograd.grad(loss, leaves(hidden, by))]


def distance(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of the expected."""
    gap = (found.detach().double() - expected.detach().double()).norm()
    return float(gap / expected.detach().double().norm().clamp(min=1e-30))


FORMS: dict[str, dict[str, Any]] = {
    "bare": {},
    "bias": {"bias": True},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 2.0},
    "low rank": {"low_rank": True},
    "all": {"bias": True, "scale": 3.0, "softcap": 4.0, "low_rank": True},
}
ENTROPIES: tuple[EntropyMode, ...] = ("none", "value", "gradient")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
def test_values_and_gradients_are_those_of_full_logits(
    form: str, entropy: EntropyMode, temperature: float, frozen: bool
) -> None:
    case = made(torch.float64, **FORMS[form])
    if frozen:  # then the forward takes the gradient of the hidden states along
        for right in (case[2].weight, case[2].bias, *(v for _, v in case[2].low_rank)):
            if right is not None:
                right.requires_grad_(False)
    expected = measured(plain, case, temperature, entropy)
    for size in (8, 8 * 7, 8 * 60, 2**20):  # also blocks of one logit
        found = measured(in_blocks(size), case, temperature, entropy)
        assert max(map(distance, found, expected)) < 1e-12


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_float32_is_exact_to_its_rounding(entropy: EntropyMode) -> None:
    expected = measured(plain, made(torch.float64), 1.0, entropy)
    found = measured(chunked_terms, made(), 1.0, entropy)
    assert {x.dtype for x in found} == {torch.float32}
    assert max(map(distance, found, expected)) < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_that_of_the_values(form: str) -> None:
    hidden, ids, by = made(torch.float64, **FORMS[form])

    def terms(*_: Tensor) -> tuple[Tensor, Tensor]:
        return chunked_terms(hidden, ids, by, 0.7, "gradient", 8 * 30)

    assert torch.autograd.gradcheck(terms, leaves(hidden, by))


def test_large_logits_do_not_overflow_and_a_sure_token_has_no_entropy() -> None:
    hidden, weight = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.0], [500.0], [-500.0]])
    by = Projection(weight=weight)
    logp, spread = chunked_terms(hidden, torch.tensor([1, 1]), by, 1.0, "value", 4)
    assert logp.tolist() == [0.0, -1000.0] and spread.tolist() == [0.0, 0.0]


def test_without_tokens_nothing_is_returned_and_gradients_are_zero() -> None:
    hidden, _, by = made(bias=True)
    logp, spread = chunked_terms(hidden[:0], torch.zeros(0, dtype=torch.int64), by, 1.0, "gradient")
    assert logp.shape == spread.shape == (0,)
    grads = torch.autograd.grad((logp + spread).sum(), leaves(hidden, by))
    assert all(not grad.any() for grad in grads)


def test_a_frozen_layer_is_projected_once_and_only_vectors_are_kept() -> None:
    """Two products in all, where computing the logits again would take three."""
    hidden, ids, by = made()
    by.weight.requires_grad_(False)
    with Watched() as watched:
        logp, _ = chunked_terms(hidden, ids, by)
        logp.sum().backward()
    assert watched.calls["addmm"] == 2
    with Watched() as watched, torch.no_grad():
        chunked_terms(hidden, ids, by)
    assert watched.calls["addmm"] == 1, "without a gradient there is one pass"


class Watched(TorchDispatchMode):
    """Counts operations, and notes the largest tensor that one of them makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.calls: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.calls[name] = self.calls.get(name, 0) + 1
        self.largest = max(self.largest, *(x.numel() for x in tensors(out)), 0)
        return out


def tensors(out: Any) -> Iterator[Tensor]:
    for each in out if isinstance(out, tuple | list) else (out,):
        if isinstance(each, Tensor):
            yield each


def test_no_tensor_is_as_large_as_the_logits() -> None:
    """Neither in the forward nor in the backward pass."""
    case = made(softcap=3.0, bias=True)
    with Watched() as watched:
        measured(in_blocks(4 * 40), case, 1.0, "gradient")
    assert watched.largest <= max(V * H, 40) < N * V
    with Watched() as watched:
        measured(plain, case, 1.0, "gradient")
    assert watched.largest >= N * V


def test_half_precision_is_nearer_to_the_exact_values_than_full_logits() -> None:
    """The values and the weights' gradients: full logits are rounded, here they are not."""
    halves = made(torch.bfloat16)
    weight = halves[2].weight.detach().double().requires_grad_()
    hidden = halves[0].detach().double().requires_grad_()
    case64 = hidden, halves[1], Projection(weight=weight)
    exact = measured(plain, case64, 1.0, "gradient")
    full = measured(plain, halves, 1.0, "gradient")
    found = measured(in_blocks(4 * 40), halves, 1.0, "gradient")
    assert found[0].dtype == torch.float32 and found[3].dtype == torch.bfloat16
    ours, theirs = ([distance(a, b) for a, b in zip(x, exact, strict=True)] for x in (found, full))
    assert all(a < b for a, b in zip(ours, theirs, strict=True))
    assert max(ours[:2]) < 1e-6, "the products of bfloat16 numbers are exact in float32"


def test_autocast_rounds_the_factors_and_keeps_float32_gradients() -> None:
    hidden, ids, by = made()
    rounded = made()
    halves = Projection(weight=rounded[2].weight.detach().bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        found = measured(chunked_terms, (hidden, ids, by), 1.0, "none")
    expected, _ = chunked_terms(hidden.detach().bfloat16(), ids, halves)
    assert torch.equal(found[0], expected)
    assert {x.dtype for x in found} == {torch.float32}
