"""Which engine stands around which."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.rollout.around import around
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.props import Props
from rlkit.rollout.shared import SharedEngine
from rlkit.rollout.spec_rl import SpecRL
from tests.compositions import composed
from tests.rollout.test_shared import Rank

SMALL = ("algorithm=grpo", "environment=calculator")


def test_the_settings_choose() -> None:
    plain = HFRollout(HFConfig())
    drafts, props = HFRollout(HFConfig(draft="spec_rl")), HFRollout(HFConfig(behavior="props"))
    assert around(plain) is plain
    assert isinstance(around(drafts), SpecRL) and isinstance(around(props), Props)


@pytest.mark.parametrize(
    ("algorithm", "kind", "matches"), [("spec_rl", SpecRL, True), ("props", Props, False)]
)
def test_a_run_has_it_around_what_the_ranks_share(
    algorithm: str, kind: type[SpecRL | Props], matches: bool
) -> None:
    alone = composed(f"algorithm={algorithm}").rollouts
    assert isinstance(alone, kind) and isinstance(alone.inner, HFRollout)
    assert alone.matches_trainer == matches
    shared = composed(f"algorithm={algorithm}", processes=Rank(0, [])).rollouts
    assert isinstance(shared, kind) and isinstance(shared.inner, SharedEngine)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["rollout.draft=spec_rl", "rollout.behavior=props"])
def test_an_environment_and_sharded_weights_are_refused(setting: str) -> None:
    with pytest.raises(UserError, match=f"{setting} is for responses in one turn"):
        composed(*SMALL, setting)

    class Sharding(Rank):
        shards_weights = True

    with pytest.raises(UserError, match=f"{setting.partition('=')[0]} is not possible with"):
        composed("algorithm=grpo", setting, processes=Sharding(0, []))
