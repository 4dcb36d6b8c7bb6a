"""Limits that cannot be kept, and weights that cannot be, are told what to change."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.rewards.limits import Multiplier
from tests.compositions import composed

TWO = "reward=[math,overlong]"
LIMIT = "reward.overlong.limit=0.1"
ONLY = "reward.overlong.evaluation_only=true"
COST = "eval.reward=overlong"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("reward=[math]", "reward.math.limit=0.5"), "reward.math.limit .* no reward without"),
        ((TWO, LIMIT, "reward.math.limit=1"), "no reward without a limit"),
        ((TWO, LIMIT, "eval.reward=overlong"), "eval.reward=overlong is a cost"),
        ((TWO, LIMIT, "reward.overlong.weight=0.5"), "reward.overlong.weight has no effect"),
        (
            (TWO, LIMIT, "reward.overlong.weight={kind: linear, start: 1, end: 0}"),
            "reward.overlong.weight has no effect beside limit",
        ),
        ((TWO, "reward.overlong.multiplier=1"), "reward.overlong.multiplier is that of a limit"),
        ((TWO, LIMIT, "reward.overlong.multiplier=11"), "multiplier=11.0 must be at most"),
        ((TWO, LIMIT, "reward.overlong.multiplier_rate=0"), "multiplier_rate=0 is not valid"),
        ((TWO, LIMIT, "buffer=pairs", "loss=online_dpo"), "buffer=pairs generates none"),
        (
            (TWO, LIMIT, "reward.overlong.multiplier={kind: linear, start: 0, end: 1}"),
            "a schedule is not possible here",
        ),
        ((TWO, "reward.overlong.buffer={kind: linear}"), "a schedule is not possible here"),
        ((TWO, "reward.math.weight={kind: sine}"), "reward.math.weight.kind=sine"),
        ((TWO, ONLY, "reward.overlong.weight=0.5"), "no effect beside evaluation_only"),
        (
            (TWO, ONLY, "reward.overlong.weight={kind: linear, start: 1, end: 0}"),
            "no effect beside evaluation_only",
        ),
        (
            (TWO, ONLY, "reward.overlong.weight={kind: constant, start: 1}"),
            "reward.overlong.weight has no effect beside reward.overlong.evaluation_only",
        ),
        (
            ("reward=[math,overlong,exact]", LIMIT, "reward.exact.evaluation_only=true", COST),
            "eval.reward=overlong is a cost",
        ),
        (
            (
                "task=mixed",
                "task.parts={a: {kind: arithmetic}, b: {kind: arithmetic, "
                "reward: [{kind: exact, evaluation_only: true}]}}",
            ),
            "task.parts.b.reward has only rewards with evaluation_only",
        ),
    ],
)
def test_what_cannot_be_is_one_line(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        composed(*overrides)
    assert "\n" not in str(error.value)


def test_a_limit_is_a_schedule_of_its_multiplier_and_a_weight_may_be_one() -> None:
    cosine = "reward.math.weight={kind: cosine, start: 2, end: 1, steps: 9}"
    c = composed(TWO, LIMIT, cosine, "reward.overlong.multiplier=1.5")
    assert set(c.scalars) == {"reward.math.weight", "reward.overlong.multiplier"}
    assert c.rewards["math"].config.weight == 2.0 and c.parts.rewards is c.rewards
    multiplier = c.scalars["reward.overlong.multiplier"]
    assert isinstance(multiplier, Multiplier)
    assert (multiplier.cost, multiplier.limit, multiplier.start) == ("overlong", 0.1, 1.5)


def test_a_cost_does_not_say_which_responses_are_right() -> None:
    """By the order of the rewards it would be the first."""
    assert composed("reward=[exact,math]").judges.default == "exact"
    assert composed("reward=[exact,math]", "reward.exact.limit=0.5").judges.default == "math"


def test_a_greedy_baseline_cannot_be_replayed_under_moving_weights() -> None:
    remax = ("algorithm=remax", TWO, "reward.math.weight={kind: linear, start: 1, end: 0}")
    composed(*remax)
    with pytest.raises(UserError, match=r"reward\.math\.weight moves, and .* greedy baseline"):
        composed(*remax, "buffer=fifo")
