"""Each check of an engine catches one that is broken in its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.hf import HFRollout
from rlkit.testing import check_rollout
from rlkit.testing import engines as kit


class Changed(HFRollout):
    """The engine `hf`, with other responses."""

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        return [[self.changed(each) for each in group] for group in super().generate(call)]

    def changed(self, generation: Generation) -> Generation:
        return generation


class Few(HFRollout):
    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        return [group[:1] for group in super().generate(call)]


class Rough(Changed):
    def changed(self, generation: Generation) -> Generation:
        return replace(generation, logp=generation.logp - 0.1)


class Double(Changed):
    def changed(self, generation: Generation) -> Generation:
        return replace(generation, logp=generation.logp.double())


class Old(Changed):
    def changed(self, generation: Generation) -> Generation:
        return replace(generation, policy_version=torch.zeros_like(generation.policy_version))


class Deaf(HFRollout):
    """Draws the same whatever the stream."""

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        return super().generate(replace(call, stream=("rollout", 0, 0)))


class Stubborn(HFRollout):
    """Samples as in training, whatever a call says."""

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        return super().generate(replace(call, sampling=None))


class Forgetful(HFRollout):
    """Follows the length alone."""

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        given = call.sampling and call.sampling.model_copy(update={"top_k": None})
        return super().generate(replace(call, sampling=given))


class Changeable(HFRollout):
    """Goes on as the last call said."""

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        self.config = call.settings(self.config)
        return super().generate(call)


class Numberless(HFRollout):
    """Draws by the place in the batch alone."""

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        return super().generate(replace(call, numbers=None))


def test_the_own_one_passes() -> None:
    check_rollout(HFRollout())


@pytest.mark.parametrize(
    ("check", "broken", "said"),
    [
        (kit.each_request_gets_its_responses, Few, r"asked for \[1, 2, 3\] .* \[1, 1, 1\]"),
        (kit.each_request_gets_its_responses, Double, r"logp is not \[T\] float32"),
        (kit.each_request_gets_its_responses, Old, "policy_version"),
        (kit.log_probs_are_those_of_the_policy, Rough, "off by up to 0.10 nats"),
        (kit.a_stream_names_the_draws, Deaf, "another step's stream gives the same"),
        (kit.a_call_may_sample_in_its_own_way, Stubborn, "more tokens than a call's own sampling"),
        (kit.a_call_may_sample_in_its_own_way, Forgetful, "responses to a prompt differ"),
        (kit.a_call_may_sample_in_its_own_way, Changeable, "changes later calls"),
        (kit.numbers_name_the_draws, Numberless, "changes when others leave the batch"),
    ],
)
def test_a_broken_one_is_caught(
    check: Callable[[Any], None], broken: type[HFRollout], said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        check(broken())
