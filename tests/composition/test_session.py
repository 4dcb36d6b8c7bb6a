"""From a composition to a session: which model, which data, which source of responses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlkit.composition import session as session_module
from rlkit.composition.composition import Composition, Given
from rlkit.composition.session import (
    RunScope,
    close,
    load_prompts,
    open_session,
    policy_of,
    prompt_stream,
    source_of,
)
from rlkit.errors import UserError
from rlkit.interfaces import RunContext, Task, TaskData
from rlkit.models.policy import Policy
from rlkit.rollout.ahead import Ahead
from rlkit.rollout.partial import Partial
from rlkit.rollout.source import OnDemand
from tests.architectures import tiny_policy
from tests.compositions import composed
from tests.steps import ROWS
from tests.tiny import make_policy


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        (("rollout.mode=sync",), OnDemand),
        (("rollout.mode=ahead",), Ahead),
        (("rollout.oversample=0.5",), Partial),
    ],
)
def test_responses_come_from_where_the_mode_says(
    overrides: tuple[str, ...], kind: type[Any]
) -> None:
    source = source_of(composed(*overrides))
    assert type(source) is kind
    assert not getattr(source, "greedy", False)


def test_greedy_responses_are_asked_for_where_the_advantage_needs_them() -> None:
    source = source_of(composed("advantage=remax"))
    assert isinstance(source, OnDemand) and source.greedy


class Rows(Task):
    """Rows of its own."""

    def __init__(self, train: list[Any], held_out: list[Any]) -> None:
        super().__init__()
        self.data = TaskData(train=train, eval=held_out)

    def load(self, seed: int) -> TaskData:
        return self.data


def with_task(train: list[Any], held_out: list[Any], *overrides: str) -> Composition:
    task = Rows(train, held_out)
    return replace(composed(*overrides), task=task, eval_task=task)


def test_prompts_are_those_of_the_task_and_no_more_held_out_ones_than_asked(
    policy: Policy,
) -> None:
    c = with_task(ROWS, ROWS[:4], "eval.problems=3")
    train, held_out = load_prompts(c, policy)
    assert len(train) == len(ROWS) and len(held_out) == 3
    assert held_out[0].prompt_id != train[0].prompt_id
    other = replace(c, eval_task=Rows([], ROWS[4:]))
    assert [p.text_or_messages for p in load_prompts(other, policy)[1]] == [
        row["prompt"] for row in ROWS[4:]
    ]


def test_no_problems_and_overlong_ones_are_said(policy: Policy) -> None:
    with pytest.raises(UserError, match="the task has no eval problems"):
        load_prompts(with_task(ROWS, []), policy)
    long = [{"prompt": "1+" * 40, "answer": "1"}]
    c = with_task(long, ROWS, "rollout.max_prompt_length=20")
    with pytest.raises(UserError, match="max_prompt_length"):
        load_prompts(c, policy)


def test_a_policy_is_the_given_model_or_the_named_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy()
    given = Given(model=policy.model, tokenizer=policy.tokenizer)
    found = policy_of(replace(composed("model.device=cpu"), given=given), None)
    assert found.model is policy.model
    asked: list[Any] = []
    monkeypatch.setattr(
        session_module, "load_policy", lambda *a, **k: asked.append((str(a[1]), k["adapter"]))
    )
    named = composed("task=arithmetic", "model.device=cpu")
    policy_of(named, tmp_path)
    object.__setattr__(named, "config", composed("model.lora.r=2").config)
    monkeypatch.setattr(session_module, "model_folder", lambda c: "the base")
    policy_of(named, tmp_path)
    policy_of(named, None)
    assert asked == [(str(tmp_path), None), ("the base", tmp_path), ("the base", None)]


def test_only_pass_rates_need_a_reward_that_marks_correctness(policy: Policy) -> None:
    """A run on preferences has no reward, and one may be trained on that marks nothing."""
    mild = with_task(ROWS, ROWS, "reward=[missing_eos,exact]", "reward.exact.evaluation_only=true")
    none = replace(mild, rewards={}, eval_rewards={})
    train, _ = load_prompts(mild, policy)
    for c in (mild, none):
        assert len(prompt_stream(c, train).take(3)) == 3
        with pytest.raises(UserError, match="no reward of this run marks correctness"):
            assert c.training_judges
    rated = with_task(ROWS, ROWS, "prompts.order=easy_first")
    assert prompt_stream(rated, train).choice.judges.default == "arithmetic"


def test_a_session_holds_the_parts_of_the_composition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    c = composed("buffer=fifo", "anchor=base", "rollout.temperature=0.5", "seed=3")
    run = RunScope.of(c)
    session = open_session(c, run, policy=make_policy())
    assert session.parts is c.parts and session.buffer is c.buffer
    assert session.policy.temperature == 0.5
    assert c.buffer.context.seed == 3 and c.buffer.context.folder == Path("out/buffer")
    assert c.parts.anchor.context.read_by_loss == c.read_by_loss
    assert session.collector.rewards.rewards == dict(c.rewards)
    assert session.run_folder is run.folder and session.raw is c.raw
    assert session.prompts.num_generations == c.engine.config.num_generations


def test_a_model_that_reads_padding_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    c = composed()
    with pytest.raises(UserError, match="a RwkvForCausalLM cannot be trained"):
        open_session(c, RunScope.of(c), policy=tiny_policy("rwkv"))


def test_what_was_opened_is_closed_once() -> None:
    closed: list[str] = []

    class Reward:
        def close(self) -> None:
            closed.append("reward")

    class Engine:
        def close(self) -> None:
            closed.append("engine")

    one: Any = Reward()
    engine: Any = Engine()
    made: Any = replace(
        composed(),
        rollouts=engine,
        rewards={"a": one},
        eval_rewards={"a": one},
    )
    close(made)
    assert closed == ["engine", "reward"]


def test_a_buffer_is_told_of_the_data_and_may_tell_the_user(policy: Policy) -> None:
    """A chat template makes messages of the task's texts; the buffer sees them so."""
    policy.tokenizer.chat_template = "{% for m in messages %}#{{ m['content'] }}{% endfor %}"
    c = with_task(ROWS, ROWS[:4], "buffer=on_policy")
    heard: list[RunContext] = []
    c.buffer.open = heard.append  # type: ignore[method-assign,assignment]
    session = open_session(c, RunScope.of(c), policy=policy)
    (context,) = heard
    context.say("mine")
    assert session.notes[0].startswith(f"Prompts: {len(ROWS)} wrapped in the chat template")
    assert session.notes[1:] == ["mine"]
    asked = [{"role": "user", "content": ROWS[0]["prompt"]}]
    assert context.problems[session.prompts.prompts.ids[0]] == asked
    assert context.as_asked(ROWS[0]["prompt"]) == asked and len(context.problems) == len(ROWS)
