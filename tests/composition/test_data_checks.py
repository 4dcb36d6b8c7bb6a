"""What is wrong with a run's problems is said before its first step."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from rlkit.composition.data_checks import check_data, check_kept, check_room, unkept
from rlkit.composition.session import RunScope, load_prompts, open_session
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.tasks.prompts import Prompts
from tests.composition.test_session import with_task
from tests.tiny import make_policy


@pytest.mark.parametrize("name", ["prompts", "completions", "completion_ids", "self"])
def test_a_column_with_the_name_of_an_argument_is_refused(policy: Policy, name: str) -> None:
    """In whatever row it is."""
    rows = [{"prompt": "1+1=", "answer": "2"}] * 70
    fine, clash = (
        with_task(rows, rows[:1]),
        with_task([*rows, {"prompt": "1", name: "2"}], rows[:1]),
    )
    check_data(fine, policy, load_prompts(fine, policy))
    with pytest.raises(UserError, match=f"a column called '{name}'"):
        check_data(clash, policy, load_prompts(clash, policy))


def test_prompt_and_completion_need_positions() -> None:
    """The longest prompt has 4 tokens: with 6 of a completion it needs 10 positions."""
    prompts = Prompts("train", [{"prompt": "1+1="}], make_policy().tokenizer).within(9, "error")
    check_room(prompts, make_policy(max_position_embeddings=10), 6)
    with pytest.raises(UserError, match=r"has 4 tokens.*=7 that is more than the model's 10 pos"):
        check_room(prompts, make_policy(max_position_embeddings=10), 7)


def test_tokens_need_embeddings() -> None:
    """ "=" is token 13, and 14 embeddings are those of tokens 0 to 13."""
    policy = make_policy()
    prompts = Prompts("eval", [{"prompt": "1+1="}], policy.tokenizer).within(9, "error")
    policy.model.resize_token_embeddings(14)
    check_room(prompts, policy, 2)
    policy.model.resize_token_embeddings(13)
    with pytest.raises(UserError, match="the eval set has the token 13.*only 13 tokens"):
        check_room(prompts, policy, 2)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, None),
        ([1, ({"a": "b"}, 2.5)], None),
        (datetime.date(2026, 1, 2), "date"),
        ([{"a": b"x"}], "bytes"),
        ({1: "a"}, "dict"),
        ({"$tensor": "a"}, "dict"),
    ],
)
def test_what_a_checkpoint_cannot_keep(value: Any, kind: str | None) -> None:
    assert unkept(value) == kind
    if kind is not None:
        with pytest.raises(UserError, match=f"column 'when' of the task holds a {kind}"):
            check_kept([{"prompt": "1", "when": value}])


def test_a_session_checks_its_data(policy: Policy) -> None:
    """Only a buffer that stores the columns needs them to be plain."""
    rows = [{"prompt": "1+1=", "answer": "1", "when": datetime.date(2026, 1, 2)}]
    kept = with_task(rows, rows, "buffer=fifo")
    with pytest.raises(UserError, match="column 'when'"):
        open_session(kept, RunScope.of(kept), policy=policy)
    assert load_prompts(kept, policy)[0][0].columns["answer"] == "1"
    free = with_task(rows, rows, "buffer=on_policy")
    open_session(free, RunScope.of(free), policy=policy)
