"""What a composition says of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlkit.config.run import RunConfig
from tests.compositions import composed
from tests.sessions import Listening


@pytest.mark.slow
def test_what_the_loss_reads_is_known_unless_the_penalty_may_begin_later() -> None:
    assert composed("loss=ppo", "anchor=base").read_by_loss == frozenset()
    later = composed("anchor=base", "anchor.beta={kind: linear, start: 0, end: 1, steps: 9}")
    assert later.read_by_loss is None


def test_sections_are_those_that_schedules_set_and_every_part_has_one() -> None:
    c = composed("correction=[tis]", "reward=[exact]")
    lists = {"correction.tis", "reward.exact"}
    assert set(c.sections) == {"loss", "advantage", "buffer", "anchor", *lists}
    assert c.sections["correction.tis"] is dict(c.parts.corrections)["tis"]
    others = {"schedule", "task", "rollout", "tracker.console"}
    assert set(c.every_part) == {*c.sections, *others}
    assert c.every_part["rollout"] is c.engine


def test_defaults_are_of_the_classes_and_not_of_the_run() -> None:
    c = composed("correction=[tis]", "train.steps=7", "anchor=base", "anchor.beta=0.5")
    found = c.defaults
    assert found["train"] == RunConfig(output_dir="x").train.model_dump(mode="json")
    assert found["anchor"] == type(c.parts.anchor.config)().model_dump(mode="json")
    assert set(found["correction"]) == {"tis"}


def test_only_a_console_is_told() -> None:
    own, c = Listening(), composed()
    replace(c, trackers={"console": own}).say("a line")
    replace(c, trackers={"other": own}).say("another")
    assert own.lines == ["a line"]


def test_parts_that_continue_from_their_state_are_known() -> None:
    stateless = composed("algorithm=grpo", "reward=[math]", "correction=[tis]")
    assert stateless.restored == []
    chosen = "anchor=ema", "buffer=fifo", "advantage=gae", "schedule=plateau"
    found = composed("algorithm=grpo", *chosen).restored
    assert found == ["advantage", "buffer", "anchor", "schedule"]
