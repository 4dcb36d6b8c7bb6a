"""How much is generated, and what is handed on."""

from __future__ import annotations

import pytest

from rlkit.composition.doctor.answers import Sizes, affordable
from tests.composition.doctor.patients import patient_of


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (1e9, (8, 8, 512)),
        (4 * 8 * 512, (4, 8, 512)),
        (2 * 5 * 512, (2, 5, 512)),
        (2 * 4 * 100, (2, 4, 100)),
        (1, (2, 4, 16)),
    ],
)
def test_groups_then_responses_then_their_ends_are_left_out(
    tokens: float, expected: tuple[int, int, int]
) -> None:
    wanted = Sizes(groups=8, n=8, length=512)
    assert affordable(wanted, 4, tokens) == Sizes(
        groups=expected[0], n=expected[1], length=expected[2]
    )


def test_nothing_is_longer_than_the_run_wants() -> None:
    wanted = Sizes(groups=1, n=2, length=6)
    assert affordable(wanted, 4, 1e9) == wanted
    assert affordable(wanted, 2, 1) == wanted


def test_responses_are_generated_with_the_runs_own_settings() -> None:
    answers = patient_of("rollout.num_generations=4", "rollout.max_completion_length=9").answers
    assert [len(group) for group in answers.own] == [4] * 6
    assert answers.limit == 9
    assert max(len(g.response_ids) for _, g in answers.flat) == 9
    assert [p.prompt_id for p, _ in answers.flat[:6]] == [
        r.prompt.prompt_id for r in answers.requests
    ]
    assert len(answers.again) == 4
    assert all(g is None for g in answers.greedy)
    assert answers.completed(answers.plan, None, 1) == []


def test_greedy_responses_are_there_for_an_advantage_that_needs_them() -> None:
    answers = patient_of("advantage=remax").answers
    assert all(g is not None for g in answers.greedy)
