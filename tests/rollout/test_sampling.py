"""One token per row of logits: the inverse CDF in two levels, and its log-prob."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlkit.rollout.sampling import BLOCK, Masses, Sampler, truncate

SIZES = [1, 5, BLOCK, BLOCK + 1, 3 * BLOCK + 7]
LAST = 1 - 2.0**-53
"""The largest number below 1 that is drawn."""


def logits(rows: int, size: int) -> Tensor:
    return 3 * torch.randn(rows, size, generator=torch.Generator().manual_seed(size))


def sampler(*, greedy: bool = False, temperature: float = 1.0, top_k: int = 0) -> Sampler:
    return Sampler(temperature, top_p=1.0, top_k=top_k, greedy=greedy)


def test_the_cdf_is_inverted_by_hand() -> None:
    logp = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).log().expand(5, 4)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.9999])
    assert Masses.of(logp).pick(uniform).tolist() == [0, 0, 2, 2, 3]


@pytest.mark.parametrize("size", SIZES)
def test_the_middle_of_each_token_s_interval_picks_that_token(size: int) -> None:
    """In the first, the last and every other block; the CDF is that of a plain float64 sum."""
    (z,) = logits(1, size)
    cdf = z.double().softmax(-1).cumsum(-1)
    middle = (cdf + torch.cat([cdf.new_zeros(1), cdf[:-1]])) / 2
    wide = z.double().softmax(-1) > 1e-5
    picked = Masses.of(z.expand(size, size)).pick(middle)
    assert picked[wide].tolist() == torch.arange(size)[wide].tolist() and wide.any()


@pytest.mark.parametrize("uniform", [0.0, LAST, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_a_token_without_mass_is_never_picked(size: int, uniform: float) -> None:
    """Not at the ends either, where rounding reaches the total; here one token has mass."""
    only = torch.arange(size)
    z = torch.full((size, size), -torch.inf)
    z[only, only] = logits(1, size)[0]
    assert Masses.of(z).pick(torch.full((size,), uniform)).equal(only)


@pytest.mark.parametrize("size", SIZES)
def test_the_last_number_below_one_picks_the_last_token_with_mass(size: int) -> None:
    z = logits(size, size)
    z[torch.arange(size) > torch.arange(size)[:, None]] = -torch.inf
    z[:, 0] = z.masked_fill(z.isinf(), 0).amax(-1)
    assert Masses.of(z).pick(torch.full((size,), LAST)).equal(torch.arange(size))


@pytest.mark.parametrize("size", SIZES)
def test_what_a_row_gets_does_not_depend_on_the_batch_bit_for_bit(size: int) -> None:
    z = logits(37, size)
    whole = Masses.of(z)
    for start, stop in ((0, 1), (1, 4), (4, 36), (36, 37)):
        part = Masses.of(z[start:stop].clone())
        assert part.cdf.equal(whole.cdf[start:stop])
        assert part.each.equal(whole.each[start:stop])
        assert part.logsumexp().equal(whole.logsumexp()[start:stop])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_log_prob_is_that_of_the_whole_softmax_at_the_temperature(temperature: float) -> None:
    z = logits(40, SIZES[-1])
    uniform = torch.arange(40) / 40
    found = sampler(temperature=temperature)(z, uniform)
    exact = (z.double() / temperature).log_softmax(-1)
    exact = exact.gather(-1, found.token[:, None])[:, 0]
    torch.testing.assert_close(found.logp.double(), exact, atol=3e-6, rtol=0)
    assert found.logp.dtype == torch.float32 and found.kept is None


def test_greedy_takes_the_largest_with_its_log_prob_and_truncates_nothing() -> None:
    z = logits(9, 300)
    found = sampler(greedy=True, top_k=2)(z, torch.zeros(9))
    assert found.token.equal(z.argmax(-1)) and found.kept is None
    torch.testing.assert_close(found.logp, z.log_softmax(-1).amax(-1))


def test_top_k_samples_among_the_kept_and_says_their_mass() -> None:
    z, uniform = logits(200, 300), torch.arange(200) / 200
    found = sampler(top_k=3)(z, uniform)
    logp = z.log_softmax(-1)
    top = logp.topk(3)
    assert (found.token[:, None] == top.indices).any(1).all()
    assert found.kept is not None
    torch.testing.assert_close(found.kept, top.values.logsumexp(-1))
    torch.testing.assert_close(found.logp, logp.gather(-1, found.token[:, None])[:, 0])


def test_truncate_by_hand() -> None:
    logp = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()

    def kept(p: float, k: int) -> list[bool]:
        return truncate(logp, p, k)[0].isfinite().tolist()

    assert kept(0.5, 0) == [True, False, False, False]
    assert kept(0.6, 0) == [True, True, False, False]
    assert kept(0.95, 0) == [True, True, True, True]
    assert kept(1.0, 1) == [True, False, False, False]
    assert kept(0.01, 0) == [True, False, False, False]
