"""A judge behind a real vLLM server, which may only say one of two things."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.rewards.judge.reward import Judge
from rlkit.rewards.judge.settings import JudgeConfig
from tests.cli import SMALL, metrics, run
from tests.rollout.models import make_policy
from tests.rollout.servers import KEY, ServerProcess

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
CHOICES = {"structured_outputs": {"choice": ["3", "7"]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("judge")
    policy = make_policy()
    policy.model.save_pretrained(folder / "model")
    policy.tokenizer.save_pretrained(folder / "model")
    (folder / "chat.jinja").write_text(CHAT)
    options = ("--chat-template", str(folder / "chat.jinja"), "--served-model-name", "judge")
    started = ServerProcess(folder / "model", folder / "log", *options)
    try:
        started.wait()
        yield started
    finally:
        started.kill()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)


def judge(server: ServerProcess, folder: Path, **fields: Any) -> Judge:
    settings = {
        "address": f"{server.address}/v1",
        "key_variable": "JUDGE_KEY",
        "template": "{prompt}{completion}",
        "pattern": r"(\d)",
        "max_tokens": 4,
        "extra": CHOICES,
        "cache_dir": str(folder),
        **fields,
    }
    return Judge(JudgeConfig.model_validate(settings))


def score(found: Judge, *completions: str) -> list[float | None]:
    return found(["1+2="] * len(completions), list(completions))


def test_its_answers_are_read_and_kept(server: ServerProcess, tmp_path: Path) -> None:
    found = score(judge(server, tmp_path), "3", "4", "5", "3")
    assert set(found) <= {0.3, 0.7} and found[0] == found[3]
    assert score(judge(server, tmp_path), "3", "4", "5", "3") == found
    free = judge(server, tmp_path, extra=None, pattern="^(yes)$", values={"yes": 1})
    assert score(free, "3") == [None] and free.counts() == {"unparsed": 1}


def test_what_it_refuses_is_one_line(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"status 404: .*check reward.judge.model"):
        score(judge(server, tmp_path, model="other"), "3")
    with pytest.raises(UserError, match=r"status 400: .*failed=none"):
        score(judge(server, tmp_path), "3" * 2000)
    left = judge(server, tmp_path, failed="none")
    assert score(left, "3" * 2000) == [None] and left.counts() == {"unparsed": 0, "errors": 1}
    with pytest.raises(UserError, match=r"status 401: .*reward.judge.key_variable"):
        score(judge(server, tmp_path, key_variable=None), "3")
    monkeypatch.setenv("JUDGE_KEY", "wrong-key")
    with pytest.raises(UserError, match="check the key in JUDGE_KEY") as told:
        score(judge(server, tmp_path), "3")
    assert "wrong-key" not in str(told.value)


def test_a_run_trains_on_its_scores(server: ServerProcess, tmp_path: Path) -> None:
    settings = (
        f"reward.judge.address={server.address}/v1",
        "reward.judge.key_variable=JUDGE_KEY",
        "reward.judge.template='{prompt}{completion}'",
        r"reward.judge.pattern='(\d)'",
        "reward.judge.extra={structured_outputs:{choice:['3','7']}}",
        "reward.judge.max_tokens=4",
        f"reward.judge.cache_dir={tmp_path / 'kept'}",
    )
    out = run(
        *(*SMALL, "algorithm=grpo", "reward=[judge]", "rollout.num_generations=4", *settings),
        f"output_dir={tmp_path / 'out'}",
        cwd=tmp_path,
        env={"JUDGE_KEY": KEY},
    )
    assert out.status == 0, out.err
    rows = [row for row in metrics(tmp_path / "out") if "reward/mean" in row]
    assert len(rows) == 2 and all(0.3 <= row["reward/judge/mean"] <= 0.7 for row in rows)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not any(KEY.encode() in path.read_bytes() for path in written)
