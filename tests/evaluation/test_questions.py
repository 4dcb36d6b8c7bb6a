"""Problems ready to be asked."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.evaluation.problems import ProblemSet
from rlkit.evaluation.questions import check_room, prompts_of, reward_of, room
from rlkit.tasks.prompts import Prompts
from tests.evaluation.test_examination import ROWS
from tests.tiny import make_policy


def test_prompts_are_those_of_the_template() -> None:
    problems = ProblemSet(name="a", title="a", rows=ROWS, source="")
    policy = make_policy()
    prompts = prompts_of(problems, policy.tokenizer, "none")
    assert [prompt.text_or_messages for prompt in prompts] == ["0+1=", "1+1=", "2+1="]
    assert prompts.longest == 4 and prompts[0].columns["accepted"] == ["\\frac{1}{2}"]
    check_room(prompts, policy, room(prompts, policy))
    with pytest.raises(UserError, match="longest prompt of a has 4 tokens.*lower it"):
        check_room(prompts, policy, room(prompts, policy) + 1)


def test_votes_are_equal_within_the_tolerance_of_every_problem() -> None:
    def tolerance(*each: float) -> float:
        rows = [{**ROWS[0], "tolerance": t} for t in each]
        problems = ProblemSet(name="a", title="a", rows=rows, source="")
        return reward_of(problems).config.tolerance

    assert (tolerance(0.01, 0.01), tolerance(0.01, 0.0)) == (0.01, 0.0)


def test_the_room_for_a_response_is_what_the_longest_prompt_leaves() -> None:
    policy = make_policy()
    prompts = Prompts("a", ROWS, policy.tokenizer, "never").within(99, "error")
    positions = policy.model.config.max_position_embeddings
    assert room(prompts, policy) == positions - 4
