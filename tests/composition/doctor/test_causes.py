"""Each cause is found where it is made."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlkit.composition.doctor.mismatch import check
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.sampling import KEPT
from tests.composition.doctor.patients import Change, Changing, each, patient_of, text


def scored(policy: Policy, prompt: torch.Tensor, g: Generation) -> Generation:
    """The response with a policy's log-probs."""
    logp = policy.logp(Tokens.of([prompt], [g.response_ids]))[0]
    return replace(g, logp=logp)


def at_one(
    engine: Changing, call: GenerationCall, groups: list[list[Generation]]
) -> list[list[Generation]]:
    policy = engine.policy.at(1.0)
    return [
        [scored(policy, request.ids, g) for g in group]
        for request, group in zip(call.requests, groups, strict=True)
    ]


def mixed_up(
    engine: Changing, call: GenerationCall, groups: list[list[Generation]]
) -> list[list[Generation]]:
    prompts = [request.ids for request in call.requests]
    others = [*prompts[1:], prompts[0]]
    return [
        [scored(engine.policy, prompt, g) for g in group]
        for prompt, group in zip(others, groups, strict=True)
    ]


def renormalized(
    engine: Changing, call: GenerationCall, groups: list[list[Generation]]
) -> list[list[Generation]]:
    return [
        [replace(g, logp=g.logp - g.extras[KEPT]) if KEPT in g.extras else g for g in group]
        for group in groups
    ]


def first(logp: torch.Tensor) -> torch.Tensor:
    logp[0] += 0.5
    return logp


def last(logp: torch.Tensor) -> torch.Tensor:
    logp[-1] -= 0.5
    return logp


def growing(logp: torch.Tensor) -> torch.Tensor:
    return logp + 0.0005 * torch.arange(len(logp)) ** 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "overrides", "said"),
    [
        (at_one, ("rollout.temperature=0.6",), "those at temperature 1, not at"),
        (renormalized, ("rollout.top_p=0.7",), "over the tokens that top_p and top_k keep"),
        (each(lambda logp: logp.roll(1)), (), "belong to the token before the one"),
        (each(lambda logp: logp.roll(-1)), (), "belong to the token behind the one"),
        (mixed_up, (), "under other prompts of the batch"),
        (each(first), (), "Only the first tokens differ"),
        (
            each(last, lambda call, g: g.finish_reason == "stop" and len(g.logp) > 1),
            (),
            "Only the tokens that end a response differ",
        ),
        (
            each(lambda logp: logp + 0.1, lambda call, g: call.stream == ("doctor", 1, 3)),
            (),
            "Only prompts asked a second time differ",
        ),
        (each(growing), (), "grows along a response"),
        (each(lambda logp: logp + 0.3), (), "spread over all positions"),
    ],
)
def test_a_cause_is_named(change: Change, overrides: tuple[str, ...], said: str) -> None:
    found = check(patient_of(*overrides, change=change))
    assert found.verdict == "problem"
    assert said in found.finding, text(found)
    assert found.advice
