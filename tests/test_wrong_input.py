"""A mistake is one line in the user's words, status 2, no traceback, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import SMALL, run

USER_CODE = """
def raises(prompts, completions, **columns):
    raise KeyError("no such thing")

def short(prompts, completions, **columns):
    return [1.0]

def nan(prompts, completions, **columns):
    return [float("nan")] * len(prompts)

def text(prompts, completions, **columns):
    return ["good"] * len(prompts)

def nothing(prompts, completions, **columns):
    return [None] * len(prompts)
"""

# arguments, what the line must say
COMPOSITION = [
    (["algorithm=remixx"], ["algorithm", "remixx", "'remix'"]),
    (["loss=remx"], ["loss", "remx", "'remix'"]),
    (["buffer=fiffo"], ["buffer", "'fifo'"]),
    (["anchor=kl_convx"], ["anchor", "'kl_convex'"]),
    (["schedule=reincarnat"], ["schedule", "'reincarnate'"]),
    (["advantage=group_nrm"], ["advantage", "'group_norm'"]),
    (["task=arithmatic"], ["task", "'arithmetic'"]),
    (["reward=[mathh]"], ["reward", "'math'"]),
    (["rollout=hff"], ["rollout", "'hf'"]),
    (["tracker=[wandbb]"], ["tracker", "'wandb'"]),
    (["+experiment=smollm2"], ["experiment", "smollm2_cpu"]),
    (["loss.epslon=0.3"], ["loss.epslon", "'loss.epsilon'"]),
    (["+loss.epslon=0.3"], ["loss.epslon", "'epsilon'"]),
    (["train.learning_rat=1e-4"], ["train.learning_rat", "'train.learning_rate'"]),
    (["+train.learning_rat=1e-4"], ["train.learning_rat", "'learning_rate'"]),
    (["algoritm=grpo"], ["algoritm", "'algorithm'"]),
    (["+steps=3"], ["steps"]),
    (["train.steps=many"], ["train.steps", "many", "integer"]),
    (["train.steps=0"], ["train.steps", "0", "greater than or equal to 1"]),
    (["train.learning_rate=-1"], ["train.learning_rate", "greater than 0"]),
    (["seed=-1"], ["seed", "greater than or equal to 0"]),
    (["eval.every=0"], ["eval.every", "greater than or equal to 1"]),
    (["buffer.replay_fraction=1.0"], ["buffer.replay_fraction", "less than 1"]),
    (["buffer.window=0"], ["buffer.window", "greater than or equal to 1"]),
    (["anchor.beta=-0.1"], ["anchor.beta", "greater than or equal to 0"]),
    (["schedule.at=0"], ["schedule.at"]),
    (["algorithm=grpo", "loss.clip_low=-0.2"], ["loss.clip_low"]),
    (["train.prompts_per_step=10", "train.minibatches=4"], ["10", "4", "divide"]),
    (["algorithm=grpo", "rollout.num_generations=1"], ["rollout.num_generations", "2"]),
    (["model.device=cuda"], ["model.device", "CUDA", "cpu"]),
    (["model.device=gpu"], ["model.device", "gpu"]),
    (["task=reasoning_gym"], ["embedded", "model.name"]),
    (["model.name=/no/such/model"], ["model.name", "/no/such/model"]),
    (["plugins=[./nothing.py]"], ["nothing.py", "does not exist"]),
    (["plugins=[no_such_module]"], ["no_such_module"]),
    (["loss=no_such_module:Loss"], ["no_such_module"]),
    (["loss=[ppo,grpo]"], ["loss", "one"]),
    (["resume=/no/such/folder"], ["resume", "/no/such/folder"]),
    (["train.steps={"], ["train.steps"]),
    (["eval.k=4"], ["eval.k", "eval.samples"]),
]


def one_line(result_err: str) -> str:
    lines = [line for line in result_err.splitlines() if line.strip()]
    assert "Traceback" not in result_err, result_err
    assert len(lines) == 1, result_err
    assert lines[0].startswith("rlkit: ")
    return lines[0]


@pytest.mark.parametrize(("arguments", "said"), COMPOSITION, ids=lambda x: " ".join(x)[:40])
def test_a_wrong_configuration(arguments: list[str], said: list[str], tmp_path: Path) -> None:
    result = run(*arguments, "output_dir=out", cwd=tmp_path)
    assert result.status == 2, result.err + result.out
    line = one_line(result.err)
    for word in said:
        assert word in line, line
    assert list(tmp_path.iterdir()) == []


ROWS = [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(20)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model on disk, so that a jsonl task can be used."""
    from tests.tiny import make_policy

    folder = tmp_path_factory.mktemp("model")
    policy = make_policy()
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


# content of data.jsonl (None = no file), further arguments, what the line must say
DATA = [
    (None, [], ["data.jsonl"]),
    ("", [], ["empty", "data.jsonl"]),
    (json.dumps({"question": "1+1=", "answer": "2"}), [], ["prompt", "question"]),
    (json.dumps({"prompt": "1+1=", "reply": "2"}), [], ["answer", "reply"]),
    (json.dumps(ROWS[0]) + "\n{broken\n", [], ["data.jsonl", "2"]),
    (
        "\n".join(map(json.dumps, ROWS)),
        ["rollout.max_prompt_length=3"],
        ["max_prompt_length=3", "task.overlong"],
    ),
    ("\n".join(map(json.dumps, ROWS)), ["task.answer_column=anser"], ["anser", "answer"]),
    (
        "\n".join(map(json.dumps, ROWS)),
        ["reward=./user.py:raises"],
        ["raises", "KeyError", "no such thing"],
    ),
    ("\n".join(map(json.dumps, ROWS)), ["reward=./user.py:short"], ["short", "1 value", "32"]),
    ("\n".join(map(json.dumps, ROWS)), ["reward=./user.py:nan"], ["nan"]),
    ("\n".join(map(json.dumps, ROWS)), ["reward=./user.py:text"], ["text", "good"]),
    ("\n".join(map(json.dumps, ROWS)), ["reward=./user.py:missing"], ["missing", "user.py"]),
]


@pytest.mark.parametrize(
    ("content", "arguments", "said"), DATA, ids=[" ".join(d[2])[:30] for d in DATA]
)
def test_wrong_data_or_a_wrong_reward(
    content: str | None, arguments: list[str], said: list[str], tmp_path: Path, model: Path
) -> None:
    if content is not None:
        (tmp_path / "data.jsonl").write_text(content)
    (tmp_path / "user.py").write_text(USER_CODE)
    result = run(
        "algorithm=grpo",
        "task=jsonl",
        "task.path=data.jsonl",
        f"model.name={model}",
        "reward=exact",
        *SMALL,
        *arguments,
        "output_dir=out",
        cwd=tmp_path,
    )
    assert result.status == 2, result.err + result.out
    line = one_line(result.err)
    for word in said:
        assert word in line, line


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").write_text('{"step": 1}\n')
    result = run("output_dir=out", cwd=tmp_path)
    assert result.status == 2
    assert "already holds a run" in one_line(result.err) and "resume=auto" in result.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["metrics.jsonl"]


def test_no_reward_that_applies_is_said_after_a_few_tries(tmp_path: Path, model: Path) -> None:
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "user.py").write_text(USER_CODE)
    result = run(
        "algorithm=grpo",
        "task=jsonl",
        "task.path=data.jsonl",
        f"model.name={model}",
        "reward=./user.py:nothing",
        *SMALL,
        "output_dir=out",
        cwd=tmp_path,
    )
    assert result.status == 2
    assert "responses with a reward" in one_line(result.err)
