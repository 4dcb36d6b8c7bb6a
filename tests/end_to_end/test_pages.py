"""README.md and the pages of docs/: every command, Python block, key, message and link in them."""

from __future__ import annotations

import ast
import dataclasses
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from trl.trainer.grpo_config import GRPOConfig

import rlkit
from rlkit.config.run import RunConfig
from rlkit.plugins import KINDS, LIST_KINDS
from rlkit.registry import entry, names
from rlkit.stored.card import Card
from rlkit.stored.write import RolloutWriter
from tests.certain import HALF
from tests.cli import ROOT, SMALL, command, metrics, run
from tests.stored.groups import TOKENIZER, group
from tests.tasks.files import write
from tests.tiny import make_policy

GENERATED = {"losses", "advantages", "corrections", "buffers", "anchors", "schedules"}
DOCS = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.stem not in GENERATED]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(10) for b in range(4)]
TOOLS = {"make", "python", "python3", "pytest", "pip", "wandb", "vllm", ".", "rlkit"}
"""What a command may begin with; other lines of a block are output, a drawing or a script."""


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a page in one language."""
    return [text for name, text in BLOCK.findall(page.read_text()) if name == language]


def lines(page: Path) -> Iterator[list[str]]:
    """The words of every command of a page, without variables before it and what is after."""
    for line in "".join(blocks(page)).replace("\\\n", " ").splitlines():
        inner = re.fullmatch(r'srun bash -c "(.*)"', line)
        text = inner[1].replace("\\$", "$") if inner else line
        try:
            words = shlex.split(text.removesuffix("&"), comments=True)
        except ValueError:  # a drawing
            continue
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words and words[0] in {*TOOLS, "accelerate", "torchrun"}:
            yield words


def training(words: list[str]) -> list[str] | None:
    """The arguments of a command that trains."""
    for start in (["rlkit.run"], ["rlkit", "train"]):
        for at in range(len(words)):
            if words[at : at + len(start)] == start:
                return words[at + len(start) :]
    return None


def small(words: list[str]) -> list[str] | None:
    """The arguments of another command of rlkit."""
    rest = words[2:] if words[:2] == ["python", "-m"] else words
    return rest[1:] if rest[0] == "rlkit" and training(words) is None else None


EVERY = [(page.name, words) for page in PAGES for words in lines(page)]
TRAINING = [(page, args) for page, words in EVERY if (args := training(words)) is not None]
SMALLER = [(page, args) for page, words in EVERY if (args := small(words)) is not None]
ANSWERS = "evals/base/answers.parquet"
ENDLESS = {"serve", "view"}
"""Servers, which have tests of their own."""
RUN_HERE = [case for case in SMALLER if case[1][0] not in ENDLESS]
OTHER = [(p, w) for p, w in EVERY if training(w) is None and small(w) is None]


def said(case: tuple[str, list[str]]) -> str:
    return f"{case[0]}: {' '.join(case[1])}"


def furnish(folder: Path) -> None:
    """The files the pages speak of."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "my_loss.py").write_text(blocks(ROOT / "README.md", "python")[0])
    (folder / "my_configs" / "algorithm").mkdir(parents=True)
    (composition,) = blocks(ROOT / "docs" / "own_parts.md", "yaml")
    (folder / "my_configs" / "algorithm" / "mine.yaml").write_text(composition)
    rows = [{"prompt": f"{i}+1=", "answer": f"{i + 1}"} for i in range(20)]
    for name in ("train.jsonl", "train.parquet", "gsm8k.jsonl"):
        write(folder / name, rows)
    votes = {"up": 3, "down": 1}
    pairs = [{**row, "chosen": row["answer"], "rejected": "0", **votes} for row in rows]
    write(folder / "preferences.jsonl", pairs)
    RolloutWriter(folder / "runs/source/rollouts", Card(), TOKENIZER).write([group(0)], 1, 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    furnish(folder)
    return folder


@pytest.fixture(scope="module")
def runs(place: Path) -> Path:
    """The folder with the finished runs the pages speak of."""
    extras = {
        "remix": [HALF, "train.learning_rate=1e-3"],  # far from where it began: the teacher
        "grpo": ["algorithm=grpo"],
        "lora": ["model.lora.r=2"],
    }
    for name, extra in extras.items():
        done = run(*SMALL, *extra, f"output_dir=runs/{name}", cwd=place)
        assert done.status == 0, done.err
        shutil.copytree(place / f"runs/{name}/checkpoint-2", place / f"runs/{name}/checkpoint-100")
    return place


def test_the_pages_have_commands() -> None:
    assert len(TRAINING) > 50 and len(RUN_HERE) > 15
    assert {page for page, _ in TRAINING} >= {"README.md", "own_parts.md", "migrating.md", "lag.md"}


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAINING, ids=said)
def test_a_training_command_composes(case: tuple[str, list[str]], place: Path) -> None:
    """All of it but a launcher of sweeps, which is a package of its own."""
    words = [word.replace("=/shared/", "=") for word in case[1]]
    chosen = [word for word in words if not word.startswith(("hydra/", "hydra."))]
    if f"eval.against.responses={ANSWERS}" in chosen and not (place / ANSWERS).exists():
        made = command("rlkit.__main__", "eval", "embedded", "--out", "evals/base", cwd=place)
        assert made.status == 0, made.err
    extra = ["dry_run=true", "output_dir=dry", "resume=never"]
    done = command("rlkit.__main__", "train", *chosen, *extra, cwd=place)
    needs_vllm = "rollout=vllm" in chosen and find_spec("vllm") is None
    assert done.status == 0 or (needs_vllm and "vLLM is not installed" in done.err), done.err
    assert not (place / "dry" / "metrics.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("case", RUN_HERE, ids=said)
def test_another_command_runs(case: tuple[str, list[str]], runs: Path) -> None:
    extra = ["eval.problems=8", "rollout.max_completion_length=14"] if case[1][0] == "eval" else []
    done = command("rlkit.__main__", *case[1], *extra, cwd=runs)
    assert done.status == 0, done.err
    assert done.out


@pytest.mark.parametrize("case", OTHER, ids=said)
def test_any_other_command_names_targets_and_files_that_exist(case: tuple[str, list[str]]) -> None:
    _, words = case
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    for word in words:
        if word.startswith(("benchmarks/", "tests/", "configs/", "docs/")):
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_and_names_exists(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for named in re.findall(r"`((?:benchmarks|tests|configs|examples|rlkit)/[\w/.-]+)`", text):
        assert (ROOT / named).exists(), named
    for script in re.findall(r"`(?:python|pytest) ((?:benchmarks|docs|tests)/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.slow
def test_the_output_in_the_readme_is_that_of_the_command(place: Path) -> None:
    """The plan of the run, word for word; the figures after it depend on the machine."""
    shown = blocks(ROOT / "README.md")[1].splitlines()
    done = run("algorithm=remix", "dry_run=true", cwd=place)
    assert done.out.splitlines()[:3] == shown[:3]


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"({name})" in index} == pages


def test_the_loss_of_the_readme_trains(place: Path) -> None:
    done = run(*SMALL, "loss=./my_loss.py:my_loss", "output_dir=own_loss", cwd=place)
    assert done.status == 0, done.err


def test_the_page_is_the_plugin_file() -> None:
    page = "\n\n\n".join(text.strip("\n") for text in blocks(ROOT / "docs/own_parts.md", "python"))
    assert page == (ROOT / "examples/every_part.py").read_text().strip("\n")


@pytest.mark.slow
def test_a_run_of_parts_that_are_all_the_users_resumes(place: Path) -> None:
    """The first training command of own_parts.md, in two halves and in one.

    Half the responses of a group are right for certain, so the buffer has something to keep.
    """
    chosen = [*next(args for page, args in TRAINING if page == "own_parts.md")]
    both = "reward=[./examples/every_part.py:closeness,my_reward]"
    assert both in chosen
    chosen[chosen.index(both)] = both.replace("my_reward", f"my_reward,{HALF[8:-1]}")
    common = [*chosen, "reward.closeness.weight=0", *SMALL, "buffer.replayed=2"]
    common += ["schedule.target=1", "checkpoint.every=1"]
    for steps, folder, resume in ((3, "whole", "never"), (2, "part", "never"), (3, "part", "auto")):
        words = [*common, f"train.steps={steps}", f"output_dir={folder}", f"resume={resume}"]
        done = run(*words, "train.lr_scheduler_type=constant", cwd=place)
        assert done.status == 0, done.err
    whole, part = ((place / name / "metrics.csv").read_text() for name in ("whole", "part"))
    assert figures(whole, 3) == figures(part, 3) and "buffer/reuse_mean" in figures(whole, 3)
    assert float(figures(whole, 3)["buffer/age_max"]) >= 1, "nothing was replayed"


def figures(csv: str, step: int) -> dict[str, str]:
    """What the tracker wrote of a step, but for times, memory and the evaluations."""
    rows = [line.split(",") for line in csv.splitlines()]
    varying = ("time/", "throughput/", "memory/")
    return {key: value for at, key, value in rows if at == str(step) if not key.startswith(varying)}


@pytest.mark.slow
def test_a_teacher_is_loaded_and_the_policy_is_held_to_it(runs: Path) -> None:
    words = next(
        a for p, a in TRAINING if p == "own_parts.md" and any("anchor.path" in w for w in a)
    )
    teacher = ["anchor.path=runs/remix/checkpoint-2"]
    done = rlkit_metrics([*words, *SMALL, *teacher, "output_dir=taught"], runs)
    itself = rlkit_metrics([*words, *SMALL, "anchor.path=null", "output_dir=itself"], runs)
    assert done["anchor/kl_teacher"] > 1e-4 > 100 * itself["anchor/kl_teacher"]


def rlkit_metrics(words: list[str], folder: Path) -> dict[str, float]:
    """The metrics of the first step of a run."""
    done = run(*words, "tracker=[]", "train.minibatches=1", cwd=folder)
    assert done.status == 0, done.err
    return metrics(folder / words[-1].partition("=")[2])[1]


def test_the_schedule_of_the_page_ends_replay_once(place: Path) -> None:
    words = ["plugins=[./examples/every_part.py]", "algorithm=grpo", "schedule=my_schedule"]
    done = rlkit_metrics([*words, *SMALL, "schedule.target=0", "output_dir=reborn"], place)
    assert done["schedule/rebirths"] == 1


def python_with(what: str) -> list[str]:
    """The Python blocks of the pages, except the plugin file, that call something."""
    pages = [page for page in PAGES if page.name != "own_parts.md"]
    return [text for page in pages for text in blocks(page, "python") if what in text]


@pytest.mark.parametrize("text", python_with("rlkit.train"))
def test_a_python_block_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = rlkit.train
    monkeypatch.setattr(rlkit, "train", lambda *o, **given: train(*o, *SMALL, **given))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    policy = make_policy()
    given: dict[str, Any] = {
        "model": policy.model,
        "tokenizer": policy.tokenizer,
        "rows": ROWS[:32],
        "held_out": ROWS[32:],
        "reward": lambda completions, **columns: [1.0 for _ in completions],
    }
    (tmp_path / "block.py").write_text(text)
    found = runpy.run_path("block.py", given)
    assert found["run"].finished and (tmp_path / "out" / "report.html").is_file()


def rows_of(page: str, head: str) -> Iterator[list[str]]:
    """The rows of the table under a head cell, split into cells."""
    text = (ROOT / "docs" / page).read_text()
    table = text[text.index(f"| {head} |") :].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_trl_has_the_keys_the_page_names() -> None:
    known = {field.name for field in dataclasses.fields(GRPOConfig)}
    cells = [row[0] for row in rows_of("migrating.md", "TRL's `GRPOConfig`")]
    keys = {k for cell in cells for k in re.findall(r"`([a-z_]{2,})(?:=[^`]*)?`", cell)}
    assert len(keys) > 40 and keys - {"_compute_loss"} <= known, keys - known
    (block,) = python_with("GRPOConfig(")
    calls = [n for n in ast.walk(ast.parse(block)) if isinstance(n, ast.Call)]
    config = next(c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "GRPOConfig")
    assert {keyword.arg for keyword in config.keywords} <= known


def known_keys() -> set[str]:
    """Every key of a run: its own sections, and those of each registered part."""
    keys = {*KINDS}
    for section, field in RunConfig.model_fields.items():
        keys.add(section)
        inner = getattr(field.annotation, "model_fields", {})
        keys |= {f"{section}.{key}" for key in inner}
        for key, deeper in inner.items():
            deepest = getattr(deeper.annotation, "model_fields", {})
            keys |= {f"{section}.{key}.{name}" for name in deepest}
    for kind in KINDS:
        for name in names(kind):
            place = f"{kind}.{name}" if kind in LIST_KINDS else kind
            keys |= {f"{place}.{key}" for key in entry(kind, name).config.model_fields}
    return keys


@pytest.mark.parametrize("head", ["TRL's `GRPOConfig`", "verl"])
def test_rlkit_has_the_keys_and_names_the_page_gives(head: str) -> None:
    keys, rows = known_keys(), list(rows_of("migrating.md", head))
    assert len(rows) > 25
    for row in rows:
        for span in re.findall(r"`([^`@]+)`", row[1]):
            key, _, value = span.partition("=")
            assert key in keys, span
            if key in KINDS and value and "/" not in value:
                for name in value.strip("[]").split(","):
                    assert name in names(key) or (ROOT / f"configs/{key}/{name}.yaml").is_file()


def source_texts() -> str:
    """All text of the code's string literals, with a gap where a value stands."""
    folders = ("rlkit", "algorithms", "buffers", "anchors", "schedules")
    out = []
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                out.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                out.append(node.value)
    return "\n".join(out)


LEFT_OUT = re.compile(
    r"\.\.\.|'[^']*'|\b[\w.]*\d[\w.:-]*|runs/x|\./\w+\.py|--steps|\bloss\b|\bnan\b|=\S+"
)
"""What stands for a value in a message of the page."""


def test_the_messages_of_the_page_are_those_of_the_code() -> None:
    """Between quoted names, numbers and places left out."""
    texts, page = source_texts(), (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 40
    for message in messages:
        fixed = [part.strip(" .,:;?()=") for part in LEFT_OUT.split(message)]
        assert max(map(len, fixed)) >= 8, message
        for part in fixed:
            assert len(part) <= 8 or part in texts, (message, part)
