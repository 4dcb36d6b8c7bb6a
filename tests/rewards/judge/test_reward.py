"""The judge as a reward: what it asks, what it makes of the answers, and inside real steps."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.registry import names, scoped, variant
from rlkit.rewards.judge.reward import Judge
from rlkit.rewards.scoring import RewardSet
from rlkit.testing import check_reward
from tests.cli import SMALL, metrics, run, without_times
from tests.rewards.judge.stub import Stub, serving

PROMPTS = ["1+1=", "2+2="]
COLUMNS: dict[str, list[Any]] = {"answer": ["2", "4"], "completion_ids": [[1], [2]]}
SHORT = {"template": "{completion}", "pattern": "(.*)"}


def score(judge: Judge, completions: list[Any], **columns: Any) -> list[float | None]:
    return judge(PROMPTS[: len(completions)], completions, **{**COLUMNS, **columns})


def test_the_default_question_and_the_score_out_of_ten(stub: Stub) -> None:
    judge = stub.judge()
    assert score(judge, ["abc", "abcdefgh"]) == [0.3, 0.8]
    assert judge.counts() == {"unparsed": 0}
    body = next(b for b in stub.asked if "1+1=" in b["messages"][0]["content"])
    assert {k: v for k, v in body.items() if k != "messages"} == {
        "model": "judge",
        "temperature": 0.0,
        "max_tokens": 1024,
    }
    (message,) = body["messages"]
    assert message["role"] == "user"
    assert "Task:\n1+1=\n\nResponse:\nabc\n\nSay" in message["content"]


def test_every_setting_of_a_request_is_sent(stub: Stub) -> None:
    settings = {"system": "Be strict.", "model": "big", "temperature": None, "top_p": 0.5}
    judge = stub.judge(**SHORT, **settings, max_tokens=None, extra={"seed": 1})
    stub.say = lambda text: "5"
    assert score(judge, ["a"]) == [0.5]
    assert stub.asked == [
        {
            "model": "big",
            "messages": [
                {"role": "system", "content": "Be strict."},
                {"role": "user", "content": "a"},
            ],
            "top_p": 0.5,
            "seed": 1,
        }
    ]


def test_chats_and_columns_of_the_task(stub: Stub) -> None:
    judge = stub.judge(template="{prompt} {answer} {completion}", pattern=r"(\d)$")
    stub.say = lambda text: text
    chat = [[{"role": "user", "content": p}] for p in PROMPTS]
    completions = [[{"role": "assistant", "content": c}] for c in ("6", "8")]
    assert judge(chat, completions, **COLUMNS) == [0.6, 0.8]
    assert sorted(stub.questions) == ["1+1= 2 6", "2+2= 4 8"]


def test_a_row_without_a_column_has_no_score_and_is_not_asked(stub: Stub) -> None:
    judge = stub.judge(template="{answer} {completion}", pattern="(.)$")
    stub.say = lambda text: text
    assert score(judge, ["6", "8"], answer=[None, "4"]) == [None, 0.8]
    assert stub.questions == ["4 8"]


def test_a_name_that_is_no_column_is_an_error_before_anything_is_asked(stub: Stub) -> None:
    judge = stub.judge(template="{completion} {anser}")
    with pytest.raises(UserError, match=r"reward.judge.template holds \{anser\}.*mean 'answer'\?"):
        score(judge, ["a"])
    assert stub.asked == [] and stub.listed == 0


def test_equal_responses_are_asked_for_once(stub: Stub) -> None:
    stub.say = lambda text: "7"
    judge = stub.judge(**SHORT)
    assert score(judge, ["a", "a"]) == [0.7, 0.7] and len(stub.asked) == 1


def test_answers_are_kept_for_other_runs_whatever_the_judge_would_say_now(stub: Stub) -> None:
    stub.say = lambda text: "7"
    assert score(stub.judge(**SHORT), ["a"]) == [0.7]
    stub.say = lambda text: "1"
    assert score(stub.judge(**SHORT), ["a"]) == [0.7]
    assert score(stub.judge(**SHORT, highest=7), ["a"]) == [1.0], "reading is no part of the key"
    assert len(stub.asked) == 1
    assert score(stub.judge(**SHORT, temperature=0.5), ["a"]) == [0.1]
    assert score(stub.judge(**SHORT, cache=False), ["a"]) == [0.1]
    assert len(stub.asked) == 3
    stub.models = (200, {"data": [{"id": "judge", "root": "org/other"}]})
    assert score(stub.judge(**SHORT), ["a"]) == [0.1], "another model under the same name"


def test_the_folder_of_the_answers_can_be_chosen(stub: Stub, tmp_path: Path) -> None:
    stub.say = lambda text: "7"
    score(stub.judge(**SHORT, cache_dir=str(tmp_path / "mine")), ["a"])
    score(stub.judge(**SHORT), ["a"])
    assert len(stub.asked) == 2
    found = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.sqlite"))
    assert found == [Path("cache/judge/judge.sqlite"), Path("mine/judge.sqlite")]


def test_an_answer_without_a_score_is_none_and_counted_never_zero(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    stub.say = lambda text: "11" if text == "a" else "7"
    judge = stub.judge(**SHORT)
    result = RewardSet({"judge": cast("Reward", judge)}).score(PROMPTS, ["a", "b"], [[1], [2]], {})
    assert result.total == [None, 0.7] and result.counts == {"unparsed": 1}
    assert score(judge, ["a", "a"]) == [None, None] and judge.counts() == {"unparsed": 2}
    (record,) = (each for each in caplog.records if each.name.startswith("rlkit."))
    assert "an answer without a score from 0 to 10: '11'" in record.message


def test_an_answer_without_a_score_can_be_an_error(stub: Stub) -> None:
    stub.say = lambda text: "x" * 100 + "\nI cannot say."
    with pytest.raises(UserError, match=r"from 0 to 10: '\.\.\.x+ I cannot say\.'; change .*none"):
        score(stub.judge(unparsed="error"), ["a"])


def test_scores_may_be_words_fields_and_unscaled(stub: Stub) -> None:
    stub.say = lambda text: "It is right: Yes."
    yes = {"pattern": "(?i)(yes|no)", "values": {"yes": 1, "no": -1}, "lowest": -1, "highest": 1}
    assert score(stub.judge(**yes), ["a"]) == [1.0]
    stub.say = lambda text: '{"quality": 4}'
    assert score(stub.judge(field="quality"), ["b"]) == [0.4]
    assert score(stub.judge(field="quality", scale=False), ["b"]) == [4.0]
    assert score(stub.judge(field="style"), ["b"]) == [None]


def test_a_request_that_fails_is_none_by_choice_and_counted(stub: Stub) -> None:
    stub.script = [(400, "too long"), (400, "too long")]
    judge = stub.judge(**SHORT, failed="none", concurrency=1)
    stub.say = lambda text: "7"
    assert score(judge, ["a", "b"]) == [None, None]
    assert judge.counts() == {"unparsed": 0, "errors": 2}
    assert score(judge, ["a", "b"]) == [0.7, 0.7], "what failed is not kept"


def test_it_passes_the_contract_kit(stub: Stub) -> None:
    check_reward(stub.judge())


def test_several_judges_of_one_run_are_variants(stub: Stub) -> None:
    with scoped():
        kind = variant("safety", of=Judge, doc="Whether it is safe.", unparsed="error")
        assert "safety" in names("reward")
        judge = kind(kind.Config(address=stub.address))  # type: ignore[call-arg, arg-type]
        stub.say = lambda text: "?"
        with pytest.raises(UserError, match=r"reward 'safety' .*reward.safety.unparsed=none"):
            score(judge, ["a"])


def test_what_may_go_wrong_is_told(stub: Stub) -> None:
    assert stub.judge().notes() == []
    (told,) = stub.judge(cache=False).notes()
    assert "a resumed run asks" in told
    (told,) = stub.judge(address="http://judge.example/v1", key_variable="KEY").notes()
    assert "without encryption" in told
    assert stub.judge(key_variable="KEY").notes() == []


# ---- inside real steps

COMMON = (*SMALL, "algorithm=grpo", "reward=[judge]", "rollout.num_generations=4")


def steps(stub: Stub, folder: Path, *more: str) -> Any:
    own = (f"reward.judge.address={stub.address}", f"reward.judge.cache_dir={folder.parent}")
    return run(*COMMON, *own, f"output_dir={folder}", *more, cwd=folder.parent)


@pytest.mark.slow
def test_a_run_resumes_exactly_although_the_judge_would_say_something_else(
    stub: Stub, tmp_path: Path
) -> None:
    answers = iter(range(10**6))
    stub.say = lambda text: f"Score: {next(answers) % 11}"
    constant = "train.lr_scheduler_type=constant"
    whole = steps(stub, tmp_path / "whole", constant)
    assert whole.status == 0, whole.err
    rows = metrics(tmp_path / "whole")
    assert all(0 < row["reward/judge/mean"] < 1 for row in rows if "reward/mean" in row)
    assert rows[1]["reward/unparsed"] == 0.0
    cut = steps(stub, tmp_path / "cut", constant, "train.steps=1")
    assert cut.status == 0, cut.err
    with serving() as moved:
        rest = steps(moved, tmp_path / "cut", constant, "resume=auto")
        assert rest.status == 0, rest.err
        assert moved.listed > 0 and len(moved.asked) == 0
    steps_of = [row for row in metrics(tmp_path / "cut") if "reward/mean" in row]
    trained = [row for row in rows if "reward/mean" in row]
    assert without_times(steps_of) == without_times(trained) and len(trained) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (r"reward.judge.template='{promt} {completion}'", "mean 'prompt'?"),
        ("reward.judge.address=http://127.0.0.1:9/v1", "cannot reach http://127.0.0.1:9/v1"),
        ("reward.judge.model=other", "status 404: no such model"),
        ("reward.judge.key_variable=NO_SUCH_KEY", "no such environment variable"),
    ],
)
def test_what_is_wrong_is_one_line_before_the_model_is_loaded(
    setting: str, said: str, stub: Stub, tmp_path: Path
) -> None:
    stub.script = [(404, "no such model")]
    found = steps(stub, tmp_path / "out", setting)
    assert found.status == 2 and said in found.err and len(found.err.splitlines()) == 1, found.err
    assert "Loading" not in found.out and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_answers_without_a_score_leave_the_step(stub: Stub, tmp_path: Path) -> None:
    number = itertools.count()
    stub.say = lambda text: "Score: 5" if next(number) % 3 else "I cannot say."
    found = steps(stub, tmp_path / "out")
    assert found.status == 0, found.err
    rows = [row for row in metrics(tmp_path / "out") if "reward/unparsed" in row]
    assert sum(row["reward/unparsed"] for row in rows) > 0
    assert all(row["reward/judge/mean"] == 0.5 for row in rows)
