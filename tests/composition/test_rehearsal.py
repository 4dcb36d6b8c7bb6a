"""What is found out about the data and the rewards before the model is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.composition.composition import Composition
from rlkit.composition.hydra_groups import import_before_compose
from rlkit.composition.rehearsal import copied, hub_name, rehearse
from rlkit.errors import UserError
from rlkit.interfaces import PolicyLoss, Reward, Task, TaskData, Tracker
from rlkit.registry import build
from rlkit.rewards.function import reward_class
from tests.compositions import composed

ROWS: list[Any] = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "1+2=", "answer": "3"}]
CHAT = [{"prompt": [{"role": "user", "content": "1+1="}], "answer": "2"}]


class Rows(Task):
    """Rows of its own, read once."""

    def __init__(self, train: Sequence[Any], held_out: Sequence[Any]) -> None:
        super().__init__()
        self.data, self.reads = TaskData(train=train, eval=held_out), 0

    def load(self, seed: int) -> TaskData:
        self.reads += 1
        return self.data


def made(
    function: Callable[..., Any] | None = None,
    train: Sequence[Any] = ROWS,
    held_out: Sequence[Any] = ROWS,
    *overrides: str,
) -> Composition:
    c, task = composed("reward=[exact]", *overrides), Rows(train, held_out)
    rewards = c.rewards if function is None else {"own": reward_class(function)()}
    return replace(c, task=task, eval_task=task, rewards=rewards, eval_rewards=rewards)


def unnamed_argument(completions: list[str], solution: list[str]) -> list[float]:
    return [0.0 for _ in completions]


def division(completions: list[str], **columns: Any) -> list[float]:
    return [1 / len(completion) for completion in completions]


def one_number(completions: list[str], **columns: Any) -> float:
    return 0.5


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (unnamed_argument, "needs the argument 'solution'"),
        (division, r"reward 'own' raised ZeroDivisionError: division by zero \(.*rehearsal.py:"),
        (one_number, "returned 0.5"),
    ],
)
def test_a_reward_that_cannot_work_is_found_without_a_model(
    function: Callable[..., Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        rehearse(made(function))


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        (("buffer=rlep", "buffer.pool={}"), "rlep"),
        (("buffer=luffy", "buffer.path={}", "loss=luffy"), "luffy"),
        (("buffer=mix", "+buffer.second.path={}", "loss=luffy"), "mix"),
    ],
    ids=["rlep", "luffy", "mix"],
)
def test_a_buffers_own_file_is_read_without_a_model(
    chosen: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "1+1=", "solu\n')
    c = made(None, ROWS, ROWS, *(each.format(path) for each in chosen))
    with pytest.raises(UserError, match=f"buffer={name}: .*rows.jsonl.*line 1"):
        rehearse(c)


def test_a_file_that_was_tried_is_handed_over_once(tmp_path: Path) -> None:
    """The session takes the rows already read; whoever asks again reads the file as it is then."""
    path = tmp_path / "pool.jsonl"
    line = '{"prompt_id": "PLACE", "response_ids": [1], "behavior_logp": [-0.5], "reward": 1}\n'
    path.write_text(line.replace("PLACE", "first"))
    c = made(None, ROWS, ROWS, "buffer=rlep", f"buffer.pool={path}")
    rehearse(c)
    path.write_text(line.replace("PLACE", "second"))
    found = [c.take_file(str(path))[0].columns["prompt_id"] for _ in range(2)]
    assert found == ["first", "second"]


@pytest.mark.parametrize(
    ("chosen", "lacks"),
    [
        (("algorithm=sft", "buffer.column=proof"), "problem 0 of the train set has no 'proof'"),
        (("algorithm=luffy", "buffer.column=proof"), "problem 0 of the train set has no 'proof'"),
        (("algorithm=chord", "+buffer.second.column=proof"), "problem 0 .* has no 'proof'"),
        (("algorithm=online_dpo", "buffer=pairs"), "problem 0 of the train set has no 'chosen'"),
    ],
    ids=["sft", "luffy", "mix", "pairs"],
)
def test_a_row_of_the_task_that_the_buffer_cannot_use_is_found_without_a_model(
    chosen: tuple[str, ...], lacks: str
) -> None:
    with pytest.raises(UserError, match=rf"^buffer=\w+: {lacks}"):
        rehearse(made(None, ROWS, ROWS, *chosen))


@pytest.mark.parametrize("pool", [True, False], ids=["pool", "demonstrations"])
def test_a_row_of_the_buffers_own_file_is_checked_without_a_model(
    pool: bool, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "1+1="}\n')
    chosen = ("buffer=rlep", "buffer.pool") if pool else ("algorithm=sft", "buffer.path")
    with pytest.raises(UserError, match=r"^buffer=\w+: .*rows\.jsonl.*line 1"):
        rehearse(made(None, ROWS, ROWS, chosen[0], f"{chosen[1]}={path}"))


def test_columns_of_later_rows_and_rows_without_one_are_known() -> None:
    def levels(completions: list[str], level: list[int | None], **columns: Any) -> list[float]:
        return [float(each or 0) for each in level]

    rehearse(made(levels, [*ROWS, {"prompt": "p", "level": 3}]))


def test_a_chat_prompt_is_answered_by_a_message_and_a_text_by_either() -> None:
    """Whether the model has a chat template is not known before it is loaded."""

    def chats(completions: list[Any], **columns: Any) -> list[float]:
        return [float(len(completion[-1]["content"])) for completion in completions]

    def texts(completions: list[str], **columns: Any) -> list[float]:
        return [float(len(completion.strip())) for completion in completions]

    named = "model.name=some/model"
    rehearse(made(chats, CHAT, CHAT, named))
    rehearse(made(chats, ROWS, ROWS, named, "task=jsonl"))
    rehearse(made(texts))
    with pytest.raises(UserError, match="raised AttributeError"):
        rehearse(made(texts, CHAT, CHAT, named))
    with pytest.raises(UserError, match="raised IndexError"):
        rehearse(made(chats))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"promt": "1+1=", "answer": "2"},
            "problem 1 of the {} set has no column 'prompt'. Did you",
        ),
        (["1+1="], "problem 1 of the {} set is list, not a mapping"),
        ({"prompt": None}, "neither a text nor a list of messages with role and content: None"),
        ({"prompt": []}, "neither a text nor a list of messages"),
        ({"prompt": [{"text": "1+1="}]}, "neither a text nor a list of messages"),
    ],
)
@pytest.mark.parametrize("place", ["train", "eval"])
def test_a_row_without_a_usable_prompt_is_named(row: Any, said: str, place: str) -> None:
    bad = [ROWS[0], row]
    rows = (bad, ROWS) if place == "train" else (ROWS, bad)
    with pytest.raises(UserError) as caught:
        rehearse(made(None, *rows))
    assert said.format(place) in str(caught.value)


def test_no_rows_are_said() -> None:
    with pytest.raises(UserError, match="the task has no eval problems"):
        rehearse(made(None, ROWS, []))


class Counting(Reward):
    """Gives each call a higher value."""

    calls = 0

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        self.calls += 1
        return [float(self.calls)]


def test_a_reward_that_counts_its_calls_does_not_count_the_rehearsal() -> None:
    reward = Counting()
    rehearse(replace(made(), rewards={"own": reward}, eval_rewards={"own": reward}))
    assert reward.calls == 0


def test_the_rows_are_read_once() -> None:
    c = made()
    rehearse(c)
    assert c.rows[0] == ROWS and isinstance(c.task, Rows) and c.task.reads == 1


def test_a_copy_has_the_settings_of_the_reward() -> None:
    c = composed()
    (own,) = c.rewards.values()
    again = copied(own)
    assert again is not own and vars(again)["task"] is c.task
    exact = composed("reward=[exact]", "reward.exact.weight=0.5").rewards["exact"]
    assert copied(exact).config == exact.config and copied(exact) is not exact


class Loss(PolicyLoss):
    """Minus the advantage times the log-prob, in a shape of its own."""

    def shaped(self, value: Tensor, batch: LossBatch) -> Tensor:
        return value.mean()

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        value = self.shaped(-batch.advantage * policy.logp, batch)
        return LossOutput(terms=[Term(name="policy", value=value, mask=batch.mask)])


class Weighted(Loss):
    """Reads what only a certain buffer gives."""

    def shaped(self, value: Tensor, batch: LossBatch) -> Tensor:
        return value * batch.extras["weight"]


class Mistaken(Loss):
    """Reads what no batch has."""

    def shaped(self, value: Tensor, batch: LossBatch) -> Tensor:
        return value * batch.advantages  # type: ignore[attr-defined]


class Detached(Loss):
    """Without a gradient."""

    def shaped(self, value: Tensor, batch: LossBatch) -> Tensor:
        return value.detach()


class PerResponse(Loss):
    """One value per response."""

    def shaped(self, value: Tensor, batch: LossBatch) -> Tensor:
        return value.sum(-1)


def with_loss(loss: PolicyLoss) -> Composition:
    c = made()
    return replace(c, parts=replace(c.parts, loss=loss))


def test_a_term_without_a_shape_is_found_without_a_model() -> None:
    with pytest.raises(UserError, match=r"term 'policy' has a value of shape \[\]"):
        rehearse(with_loss(Loss()))
    rehearse(with_loss(PerResponse()))


def test_a_mistake_in_a_loss_is_told_with_its_line_without_a_model() -> None:
    said = r"^loss Mistaken raised AttributeError: .*'advantages' \(.*/test_rehearsal.py:\d+\)"
    with pytest.raises(UserError, match=said):
        rehearse(with_loss(Mistaken()))


class Elsewhere(Tracker):
    """A part whose package this machine does not have."""

    def require(self) -> None:
        raise UserError("tracker=elsewhere needs the package elsewhere")

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        raise NotImplementedError

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("dry", [False, True])
def test_what_a_part_needs_and_the_machine_lacks_is_found_before_a_row_is_read(dry: bool) -> None:
    c = replace(made(), trackers={"elsewhere": Elsewhere()})
    with pytest.raises(UserError, match="^tracker=elsewhere needs the package elsewhere$"):
        rehearse(c, dry=dry)
    task = c.task
    assert isinstance(task, Rows)
    assert task.reads == 0


def test_adapters_without_peft_are_found_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match="^model.lora needs the package peft: pip install peft$"):
        rehearse(made(None, ROWS, ROWS, "model.lora.r=4"))


def test_a_loss_without_a_gradient_is_found_without_a_model() -> None:
    with pytest.raises(UserError, match=r"loss Detached has no gradient: .*policy\.logp"):
        rehearse(with_loss(Detached()))


def test_a_loss_that_needs_a_real_batch_is_only_told(capsys: pytest.CaptureFixture[str]) -> None:
    rehearse(with_loss(Weighted()))
    assert "fails on an example batch (KeyError: 'weight')" in capsys.readouterr().out


def test_a_problem_without_a_reference_response_is_found_without_a_model() -> None:
    rehearse(made(None, ROWS, ROWS, "eval.against.responses=answer"))
    with pytest.raises(UserError, match=r"eval\.against\.responses=other: a problem has no such"):
        rehearse(made(None, ROWS, ROWS, "eval.against.responses=other"))


def looking(environments: list[Any], **columns: Any) -> list[float]:
    raise AssertionError("there is no environment yet")


def given_score(environment_reward: list[float], **columns: Any) -> list[float]:
    return [0.5 * value for value in environment_reward]


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("function", [looking, given_score])
def test_a_reward_of_an_environment_is_tried_with_what_there_is(function: Any) -> None:
    """What reads the environments themselves is not called; a score is a number where one comes."""
    echo = import_before_compose(["environment=tests.rollout.echo:Echo", "model.name=some/chat"])
    rehearse(made(function, ROWS, ROWS, *echo))


def test_a_dry_rehearsal_calls_no_reward_that_loads_or_asks() -> None:
    c = made(one_number)
    c.rewards["own"].costly = True  # type: ignore[misc]
    rehearse(c, dry=True)
    with pytest.raises(UserError, match=r"returned 0.5"):
        rehearse(c)


def test_data_of_the_hub_is_told_from_files() -> None:
    path = {"kind": "jsonl", "path": "here.jsonl"}
    mix = {"a": path, "b": {**path, "eval_path": "an/other"}}
    assert hub_name(build("task", "jsonl", path=("here.jsonl", "./x", "*.x"))) is None
    assert hub_name(build("task", "mixed", parts=mix)) == "an/other"
