"""Each check of an anchor catches one that is broken in its way; the policy of one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from anchors.base import BaseAnchor
from rlkit.batch import LossBatch
from rlkit.interfaces import State, Tokens
from rlkit.testing import anchors as kit
from rlkit.testing.anchors import FakePolicy, held, life


class Biased(BaseAnchor[Any]):
    """A penalty even where the policy is the reference."""

    def penalty(self, logp: Tensor, batch: LossBatch, step: int) -> Tensor:
        return super().penalty(logp, batch, step) + torch.where(batch.mask, 0.1, 0.0)


class Late(BaseAnchor[Any]):
    """Masks after the difference is taken."""

    def penalty(self, logp: Tensor, batch: LossBatch, step: int) -> Tensor:
        out = logp.new_zeros(logp.shape)
        for name in self.references(step):
            out = out + (logp - batch.anchor_logp[name]).exp() - 1
        return torch.where(batch.mask, out, 0.0)


class Moving(BaseAnchor[Any]):
    """Keeps the policy itself."""

    def rebase(self, policy: Any) -> None:
        self.frozen["base"] = policy


class Unrestored(BaseAnchor[Any]):
    """Starts from the policy it is given."""

    def restore(self, policy: Any, state: State) -> None:
        self.rebase(policy)


class Drifting(BaseAnchor[Any]):
    """Takes a new base at step 3, and forgets in a checkpoint how far it was."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.done = 0

    def after_step(self, policy: Any, step: int, metrics: Mapping[str, float]) -> None:
        self.done += 1
        if self.done == 3:
            self.rebase(policy)


@pytest.mark.parametrize(
    ("check", "broken", "sentence"),
    [
        (kit.every_reference_is_there_and_stands_still, Moving, "moves with the policy"),
        (kit.the_penalty_is_zero_at_the_references, Biased, "not 0"),
        (kit.the_penalty_is_zero_at_the_references, Late, "mask before exp|not finite"),
        (kit.references_survive_a_checkpoint, Unrestored, "restore does not bring"),
        (kit.references_survive_a_checkpoint, Drifting, "of the step after a resume differ"),
    ],
)
def test_a_broken_anchor_is_told_what_is_wrong(
    check: Callable[[Any], None], broken: type[Any], sentence: str
) -> None:
    check(BaseAnchor())
    with pytest.raises(AssertionError, match=sentence):
        check(broken())


def test_a_frozen_copy_stands_still() -> None:
    policy = FakePolicy(2.0)
    frozen = policy.freeze()
    policy.number += 1
    assert float(frozen.number) == 2 and float(policy.number) == 3
    assert float(policy.restore(frozen.state_dict()).number) == 2
    tokens = Tokens.of([torch.tensor([1])], [torch.tensor([1, 2])])
    assert frozen.logp(tokens).tolist() == [[2, 2]]


def test_a_life_is_the_calls_of_the_loop() -> None:
    anchor: BaseAnchor[Any] = BaseAnchor()
    policy = FakePolicy()
    seen = [(step, held(anchor, step)) for step in life(anchor, policy)]
    assert [step for step, _ in seen] == list(kit.STEPS)
    assert all(found == {"base": 0.0} for _, found in seen)
    assert float(policy.number) == len(kit.STEPS)
