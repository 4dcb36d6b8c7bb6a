"""MOPD: log teacher - log student times the importance weight, worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from algorithms.advantages.mopd import Mopd, MopdConfig, window_weight
from rlkit.batch import AdvantageBatch, PolicyTerms
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing import losses
from rlkit.testing.advantages import examples
from rlkit.training.objective import Objective
from tests.algorithms.advantages.hand import batch_of, row

BEHAVIOR, PROX, TEACHER = row(-1.0, -2.0), row(-1.5, -1.0), row(-0.5, -3.0)


def given(**changes: Any) -> AdvantageBatch:
    """A response of two tokens: the teacher likes the first more than the student does."""
    logps: dict[str, Any] = {
        "behavior_logp": BEHAVIOR,
        "prox_logp": PROX,
        "anchor_logp": {"teacher": TEACHER},
    }
    return replace(batch_of([1.0], [0]), **(logps | changes))


def test_the_teacher_against_the_student_times_the_weight() -> None:
    """Distances 1 and -2; pi_k / mu is e^-0.5 and e."""
    out = Mopd()(given())
    assert out.advantage[0].tolist() == pytest.approx([math.exp(-0.5), -2 * math.e])
    assert out.returns.tolist() == [[1.0, 1.0]]
    assert out.metrics == pytest.approx({"advantage/teacher_kl": 0.5, "advantage/cut": 0.0})


def test_against_the_policy_that_sampled_there_is_no_weight() -> None:
    """Distances 0.5 and -1, whatever pi_k is, which no forward has to compute."""
    part = Mopd(MopdConfig(student="behavior"))
    out = part(given(prox_logp=PROX * math.nan))
    assert out.advantage[0].tolist() == pytest.approx([0.5, -1.0])
    assert part.needs == {"behavior", "anchor:teacher"}
    assert Mopd().needs == {"behavior", "prox", "anchor:teacher"}


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((0.7, 5.0), [0.0, -2 * math.e]),
        ((0.5, 2.0), [math.exp(-0.5), 0.0]),
        ((0.0, None), [math.exp(-0.5), -2 * math.e]),
    ],
)
def test_a_token_outside_the_window_teaches_nothing(window: Any, expected: list[float]) -> None:
    out = Mopd(MopdConfig(is_min=window[0], is_max=window[1]))(given())
    assert out.advantage[0].tolist() == pytest.approx(expected)
    assert out.metrics["advantage/cut"] == expected.count(0.0) / 2


def test_the_window_holds_its_ends_and_no_log_ratio_overflows() -> None:
    found = window_weight(torch.tensor([0.0, math.log(2.0), 1e4, -1e4]), 1.0, None)
    assert found[:2].tolist() == pytest.approx([1.0, 2.0])
    assert float(found[2]) == pytest.approx(math.exp(20), rel=1e-5) and found[3] == 0
    assert window_weight(torch.tensor([0.0]), 1.0, 1.0).tolist() == [1.0]


def test_the_distance_is_bounded_on_both_sides() -> None:
    part = Mopd(MopdConfig(student="behavior", clip=0.75))
    assert part(given()).advantage[0].tolist() == pytest.approx([0.5, -0.75])


def test_the_outcome_is_added_before_the_weight() -> None:
    """Rewards 3 and 1: +-1 from their mean, times 0.5; a response alone gets no outcome."""
    two = batch_of([3.0, 1.0], [0, 0])
    logps = {name: logp.expand(2, 2) for name, logp in (("b", BEHAVIOR), ("p", PROX))}
    both = replace(
        two,
        behavior_logp=logps["b"],
        prox_logp=logps["p"],
        anchor_logp={"teacher": TEACHER.expand(2, 2)},
    )
    part = Mopd(MopdConfig(outcome=0.5))
    found = part(both).advantage[:, 0].tolist()
    assert found == pytest.approx([1.5 * math.exp(-0.5), 0.5 * math.exp(-0.5)])
    assert torch.equal(part(given()).advantage, Mopd()(given()).advantage)


def test_a_demonstration_has_no_weight() -> None:
    """Its behavior log-probs are unknown, zeros, of which e^-1.5 would be no weight."""
    out = Mopd()(given(expert=torch.tensor([True]), behavior_logp=torch.zeros(1, 2).double()))
    assert out.advantage[0].tolist() == pytest.approx([1.0, -2.0])


def test_against_the_policy_that_sampled_a_demonstration_has_the_outcome_alone() -> None:
    """Nothing sampled it: against its zeros the teacher's log-probs would push it away."""
    shown = {"expert": torch.tensor([True]), "behavior_logp": torch.zeros(1, 2).double()}
    out = Mopd(MopdConfig(student="behavior"))(given(**shown))
    assert out.advantage[0].tolist() == [0.0, 0.0]
    assert out.metrics["advantage/teacher_kl"] == 0.0


def test_with_importance_sampling_the_gradient_is_that_of_the_reverse_kl() -> None:
    """d/dtheta of -sum pi/mu (log teacher - log pi_k): each token's -(pi / mu) distance / N, also
    once the policy has left pi_k."""
    part = Mopd(MopdConfig(is_min=0.0, is_max=None))
    advantages = examples(part.needs)
    logp, batch = losses.examples(["anchor:teacher"])
    batch = replace(batch, advantage=part(advantages).advantage, mask=advantages.mask)
    batch = replace(batch, behavior_logp=advantages.behavior_logp, prox_logp=advantages.prox_logp)
    leaf = logp.clone().requires_grad_()
    objective = Objective(build("loss", "importance_sampling"))
    terms = PolicyTerms(logp=leaf, entropy=torch.zeros_like(leaf))
    out = objective.output(terms, batch, objective.anchored_rows(batch))
    objective.reduce(out.terms, objective.counts(out.terms)).backward()
    distance = advantages.anchor_logp["teacher"] - advantages.prox_logp
    expected = -(logp - advantages.behavior_logp).exp() * distance / batch.mask.sum()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, torch.where(batch.mask, expected, 0.0))


def test_a_window_without_width_below_its_start_is_refused() -> None:
    with pytest.raises(UserError, match="is_max"):
        build("advantage", "mopd", is_min=2.0, is_max=1.0)
