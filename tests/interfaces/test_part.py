"""What every part is: its config comes from the generic parameter."""

from __future__ import annotations

import pytest

from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss


class OwnConfig(LossConfig):
    cap: float = 2.0
    """A bound."""


class Narrower(OwnConfig):
    cap: float = 1.0


class Own(PolicyLoss[OwnConfig]):
    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        raise AssertionError


class Child(Own):
    """Restates nothing."""


class Named(PolicyLoss[OwnConfig]):
    Config = Narrower

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        raise AssertionError


@pytest.mark.parametrize(
    ("part", "config"), [(Own, OwnConfig), (Child, OwnConfig), (Named, Narrower)]
)
def test_the_config_is_the_generic_parameter_unless_a_class_names_another(
    part: type[PolicyLoss], config: type[LossConfig]
) -> None:
    assert part.Config is config and type(part().config) is config
