"""Each check of an estimator passes a sound one and catches one that is broken in its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, State
from rlkit.testing import advantages as kit


def spread(per_row: Tensor, mask: Tensor) -> AdvantageOutput:
    value = torch.where(mask, per_row[:, None], 0.0)
    return AdvantageOutput(advantage=value, returns=value)


class Sound(AdvantageEstimator):
    """The reward itself."""

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        return spread(b.reward, b.mask)


class Nowhere(Sound):
    """Forgets the mask."""

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        value = b.reward[:, None].expand(b.mask.shape)
        return AdvantageOutput(advantage=value, returns=value)


class Leaking(Sound):
    """Sums what is masked."""

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        return spread(b.values.sum(-1), b.mask)


class Dividing(Sound):
    """Divides by a spread that may be 0."""

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        return spread((b.reward - b.reward.mean()) / b.reward.std(), b.mask)


class Exploding(Sound):
    """The square of an unbounded ratio, in float32."""

    needs = frozenset({"behavior", "prox"})

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        ratio = torch.where(b.mask, b.prox_logp - b.behavior_logp, 0.0).float().exp().square()
        return spread(b.reward + ratio.mean(-1), b.mask)


class Reading(Sound):
    """Reads the behavior policy without naming it."""

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        logp = torch.where(b.mask, b.behavior_logp, 0.0)
        return spread(b.reward + logp.sum(-1), b.mask)


class Placed(Sound):
    """Weighs by the place in the batch."""

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        return spread(b.reward * torch.arange(len(b.reward)), b.mask)


class Pulled(Sound):
    """Its value loss has its minimum 1 too high."""

    def value_loss(self, values: Tensor, prox_values: Tensor, returns: Tensor) -> Any:
        return super().value_loss(values, prox_values, returns + 1)


class Remembering(Sound):
    """Subtracts the rewards it saw before; saves them only if asked to."""

    saves = False

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.seen = 0.0

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        out = spread(b.reward - self.seen, b.mask)
        self.seen += float(b.reward.sum())
        return out

    def state_dict(self) -> State:
        return {"seen": self.seen} if self.saves else {}

    def load_state_dict(self, state: State) -> None:
        self.seen = state.get("seen", 0.0)


class Saving(Remembering):
    """A checkpoint holds what it saw."""

    saves = True


@pytest.mark.parametrize(
    ("check", "broken", "sentence"),
    [
        (kit.advantages_have_the_shape_of_the_mask, Nowhere, "is not 0 at masked positions"),
        (kit.masked_positions_change_nothing, Leaking, "values at masked positions change"),
        (kit.equal_rewards_and_empty_responses_are_harmless, Dividing, "not finite"),
        (kit.extreme_ratios_stay_finite, Exploding, "log-ratios of"),
        (kit.needs_names_everything_that_is_read, Reading, "does not name 'behavior'"),
        (kit.the_order_of_rows_does_not_matter, Placed, "read the groups from b.group"),
        (kit.the_value_loss_pulls_to_the_returns, Pulled, "the value loss is not 0"),
        (kit.its_memory_survives_a_checkpoint, Remembering, "differ after a checkpoint"),
    ],
)
def test_a_broken_estimator_is_told_what_is_wrong(
    check: Callable[[Any], None], broken: type[Sound], sentence: str
) -> None:
    check(Sound())
    with pytest.raises(AssertionError, match=sentence):
        check(broken())


def test_an_estimator_that_saves_its_memory_passes() -> None:
    kit.its_memory_survives_a_checkpoint(Saving())


def test_every_check_is_in_the_kit() -> None:
    own = [v for k, v in vars(kit).items() if callable(v) and v.__doc__]
    checks = [f for f in own if f.__module__ == kit.__name__ and f is not kit.examples]
    assert list(kit.ADVANTAGE) == checks


def test_the_examples_hold_what_goes_wrong() -> None:
    b = kit.examples()
    assert not b.mask[0, 2] and b.mask[0, 3], "a hole"
    assert torch.equal(b.token_reward.sum(-1), b.reward)
    last = b.mask.shape[1] - 1 - b.mask.flip(1).int().argmax(1)
    assert b.token_reward[torch.arange(8), last].equal(b.reward), "on the last valid token"
    assert torch.equal(kit.examples().values, b.values)
    assert not torch.equal(kit.examples(seed=1).values, b.values)


def test_an_advantage_that_returns_no_advantage_output_is_seen() -> None:
    class Forgets(Sound):
        def __call__(self, b: AdvantageBatch) -> Any:
            return None

    with pytest.raises(AssertionError, match="it returns None, not an AdvantageOutput"):
        kit.advantages_have_the_shape_of_the_mask(Forgets())
