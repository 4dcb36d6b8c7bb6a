"""`rlkit doctor` as a user types it, on compositions that are broken on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from rlkit.composition.doctor.command import alone, configuration
from rlkit.models.policy import Policy
from tests.cli import SMALL, Result, command, run
from tests.composition.doctor.test_template import chat_policy
from tests.tiny import make_policy, make_tokenizer

ROWS = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(20)]
SHORT = ("rollout.max_completion_length=24", "train.prompts_per_step=4", "train.minibatches=1")
NOISY = """
from dataclasses import replace
from rlkit.rollout.hf import HFRollout


class Noisy(HFRollout):
    def generate(self, call):
        groups = super().generate(call)
        return [[replace(g, logp=g.logp + 0.1) for g in group] for group in groups]
"""


def doctor(*arguments: str, cwd: Path) -> Result:
    return command("rlkit.__main__", "doctor", *arguments, cwd=cwd)


def found(result: Result) -> dict[str, Any]:
    """The checks by name, of --json."""
    report = json.loads(result.out)
    return {check["name"]: check for check in report["checks"]}


def saved(policy: Policy, folder: Path) -> str:
    """The policy as a model folder."""
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return str(folder)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"task.path={path}"


def test_the_embedded_model_is_healthy(tmp_path: Path) -> None:
    result = doctor("embedded", cwd=tmp_path)
    assert result.status == 0, result.out + result.err
    assert result.out.splitlines()[-1] == "Nothing to mend."
    assert not list(tmp_path.iterdir())


def test_an_engine_whose_log_probs_are_off(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    result = doctor("embedded", "--engine", "./noisy.py:Noisy", "--json", cwd=tmp_path)
    assert result.status == 1, result.err
    checks = found(result)
    assert checks["log-probs"]["verdict"] == "problem"
    assert checks["log-probs"]["figures"]["mean"] == pytest.approx(0.1, abs=1e-3)
    assert checks["step at rate 0"]["verdict"] == "problem"
    assert checks["sampling"]["verdict"] == "ok"


@pytest.mark.slow
def test_a_wrong_end_and_prompts_that_are_too_long(tmp_path: Path) -> None:
    model = saved(chat_policy(), tmp_path / "model")
    task = jsonl(tmp_path / "train.jsonl", [*ROWS, {"prompt": "1+" * 40, "answer": "40"}])
    limit = "rollout.max_prompt_length=40"
    result = doctor(model, "task=jsonl", task, limit, *SHORT, "--json", cwd=tmp_path)
    assert result.status == 1, result.err
    checks = found(result)
    assert checks["endings"]["verdict"] == "problem"
    assert "<|end|>" in checks["endings"]["finding"]
    assert checks["prompts"]["verdict"] == "problem"
    assert checks["model"]["verdict"] == checks["log-probs"]["verdict"] == "ok"


def test_a_doubled_beginning_and_a_reward_that_never_pays(tmp_path: Path) -> None:
    tokenizer: Any = make_tokenizer()
    tokenizer.bos_token = "0"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="0 $A", special_tokens=[("0", tokenizer.convert_tokens_to_ids("0"))]
    )
    model = saved(Policy(make_policy().model, tokenizer, 1.0), tmp_path / "model")
    rows = [{**row, "prompt": "0" + row["prompt"]} for row in ROWS]
    (tmp_path / "never.py").write_text(
        "def never(completions, **columns):\n    return [0.0 for _ in completions]\n"
    )
    result = doctor(
        *("task=jsonl", jsonl(tmp_path / "train.jsonl", rows), "reward=[./never.py:never]"),
        *SHORT,
        model,
        cwd=tmp_path,
    )
    assert result.status == 2  # the model comes first
    result = doctor(
        *(model, "task=jsonl", jsonl(tmp_path / "train.jsonl", rows)),
        *("reward=[./never.py:never]", *SHORT),
        cwd=tmp_path,
    )
    assert result.status == 1, result.err
    words = " ".join(result.out.split())
    assert "PROBLEM chat template Prompts begin with 2 beginning-of-sequence tokens" in words
    assert "PROBLEM reward 'never' gives full marks to only none of" in words
    assert "PROBLEM groups" in words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: model"),
        (("embedded", "train.stepz=3"), "stepz"),
        (("embedded", "--seconds", "0"), "--seconds 0 leaves no time"),
        (("embedded", "--engine", "vlm"), "vlm"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = doctor(*arguments, cwd=tmp_path)
    assert result.status == 2
    assert said in result.err and len(result.err.strip().splitlines()) == 1


def test_no_task_is_told(tmp_path: Path) -> None:
    model = saved(make_policy(), tmp_path / "model")
    result = doctor(model, *SHORT, cwd=tmp_path)
    assert "No task was given" in result.out


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_vllm_agrees_with_the_trainer(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    cache = "rollout.kv_cache_gb=0.1"
    result = doctor("embedded", "--engine", "vllm", cache, "--json", cwd=tmp_path)
    assert result.status == 0, result.out + result.err
    checks = found(result)
    assert {check["verdict"] for check in checks.values()} == {"ok"}
    figures = checks["log-probs"]["figures"]
    assert 0 < figures["max"] < 1e-3 and 0 < figures["again_max"] < 1e-3
    assert checks["memory"]["figures"]["the engine"] > 1e8


@pytest.mark.slow
def test_a_run_brings_its_settings_and_overrides_stand_above_them(tmp_path: Path) -> None:
    """The embedded model's own length is 28, the run's 14; the engine works in turn."""
    arguments = (*SMALL, "rollout.temperature=0.5", "rollout.sync_every=2", "output_dir=out")
    assert run(*arguments, cwd=tmp_path).status == 0
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    raw, asks = configuration(checkpoint, ["rollout.temperature=0.7"], [])
    assert asks and raw["task"]["name"] == "arithmetic"
    assert raw["rollout"]["max_completion_length"] == 14
    assert (raw["rollout"]["temperature"], raw["rollout"]["sync_every"]) == (0.7, 1)
    assert alone(raw)["rollout"] == raw["rollout"] | {"sync_every": 1, "mode": "sync"}
