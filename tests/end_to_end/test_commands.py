"""The small commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rlkit.plugins import KINDS
from rlkit.registry import entry, names
from tests.certain import HALF
from tests.cli import ROOT, SMALL, command, run

BROKEN = """
from rlkit.batch import LossOutput, Term
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register


@register("loss", "leaky")
class Leaky(PolicyLoss):
    Config = LossConfig

    def __call__(self, policy, batch):
        value = -(policy.logp - batch.behavior_logp).sum() * batch.advantage
        return LossOutput(terms=[Term(name="policy", value=value, mask=batch.mask)])
"""


def rlkit(*args: str, cwd: Path) -> tuple[int, str, str]:
    result = command("rlkit.__main__", *args, cwd=cwd)
    return result.status, result.out, result.err


def files(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "configs" / group).glob("*.yaml"))


def test_list_shows_every_name(tmp_path: Path) -> None:
    listed = rlkit("list", "loss", cwd=tmp_path)[1].split()
    assert listed == sorted({*names("loss"), *files("loss")}) and "grpo_behavior" in listed
    for group in ("algorithm", "experiment"):
        assert rlkit("list", group, cwd=tmp_path)[1].split() == files(group)
    out = rlkit("list", cwd=tmp_path)[1].splitlines()
    assert [line.partition(":")[0] for line in out] == [*KINDS, "algorithm", "experiment"]
    for line, group in zip(out, [*KINDS, "algorithm", "experiment"], strict=True):
        known = {*(names(group) if group in KINDS else ()), *files(group)}
        assert line.partition(":")[2].strip() == ", ".join(sorted(known))
    status, _, err = rlkit("list", "los", cwd=tmp_path)
    assert status == 2 and "Did you mean 'loss'?" in err


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_show_documents_every_setting_of_every_part(kind: str, tmp_path: Path) -> None:
    for name in names(kind):
        status, out, _ = rlkit("show", kind, name, cwd=tmp_path)
        assert status == 0
        for field in entry(kind, name).config.model_fields:
            assert re.search(rf"\.{field} = .+\(.+\)\n    \S", out), (name, field)


@pytest.mark.slow
@pytest.mark.parametrize("group", ["algorithm", "experiment"])
def test_show_says_what_a_composition_chooses_and_sets(group: str, tmp_path: Path) -> None:
    for name in files(group):
        status, out, err = rlkit("show", group, name, cwd=tmp_path)
        assert status == 0, err
        path = ROOT / "configs" / group / f"{name}.yaml"
        comment = path.read_text().split("defaults:")[0].split("stages:")[0].splitlines()[1:]
        assert out.startswith(f"{group}={name}  {path}\n\n{comment[0].removeprefix('# ')}"), out
        overrides = [line for line in out.splitlines() if re.match(r"[\w.]+=", line)][1:]
        assert overrides, out
    lines = rlkit("show", "algorithm", "remix", cwd=tmp_path)[1].splitlines()
    parts = ["loss=remix", "advantage=group_norm", "buffer=fifo", "anchor=kl_convex"]
    assert lines[-6:] == [*parts, "schedule=reincarnate", "train.updates_per_batch=2"]
    lines = rlkit("show", "experiment", "remix_paper", cwd=tmp_path)[1].splitlines()
    assert {"algorithm=remix_ppo", "task=jsonl", "train.steps=500"} <= set(lines)
    lines = rlkit("show", "experiment", "nested_reft_retrace", cwd=tmp_path)[1].splitlines()
    assert "correction=[retrace]" in lines


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("loss", "grpo_behavior", ["loss=grpo with", 'loss.ratio_to = "behavior"    (prox']),
        ("correction", "retrace", ["correction=[tis] with", "correction.tis.is_max = 1.0"]),
        ("loss", "chord_mu", ["loss.mu.kind=cosine", 'loss.mu = {"kind": "cosine"']),
    ],
)
def test_show_of_a_variant_is_its_part_with_its_defaults(
    kind: str, name: str, said: list[str], tmp_path: Path
) -> None:
    status, out, err = rlkit("show", kind, name, cwd=tmp_path)
    assert status == 0, err
    for words in said:
        assert words in out
    base = out.split(" with\n")[0].splitlines()[-1].partition("=")[2].strip("[]")
    for field in entry(kind, base).config.model_fields:
        assert re.search(rf"\.{field} = .+\(.+\)\n    \S", out), field


@pytest.mark.slow
def test_train_is_the_same_as_the_module(tmp_path: Path) -> None:
    for arguments in (
        ("algorithm=grpo", "dry_run=true"),
        ("--cfg", "job", "-p", "train"),
        ("train.stepz=3",),
        ("--help",),
    ):
        by_command = command("rlkit.__main__", "train", *arguments, cwd=tmp_path)
        assert by_command == run(*arguments, cwd=tmp_path)
    result = command("rlkit.__main__", "train", *SMALL, "output_dir=out", cwd=tmp_path)
    assert result.status == 0, result.err
    assert (tmp_path / "out" / "checkpoint-2").is_dir()


def test_check_passes_the_example_and_says_what_a_broken_part_breaks(tmp_path: Path) -> None:
    status, out, err = rlkit("check", str(ROOT / "examples/my_parts.py") + ":MyLoss", cwd=tmp_path)
    assert status == 0 and out.count("ok  ") >= 8, err
    (tmp_path / "broken.py").write_text(BROKEN)
    status, _, err = rlkit("check", "./broken.py:Leaky", cwd=tmp_path)
    assert status == 2 and err.startswith("rlkit: ./broken.py:Leaky breaks the contract of a loss:")
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_eval_of_a_checkpoint_and_reports_of_runs(tmp_path: Path) -> None:
    """2 of 4 samples succeed: pass@2 is 1 - 1/6. The greedy response is a prompt's first, which
    does not. A run folder stands for its newest checkpoint, of an older format too."""
    for seed in (0, 1):
        result = run(*SMALL, f"seed={seed}", "train.steps=1", f"output_dir=run{seed}", cwd=tmp_path)
        assert result.status == 0, result.err
    manifest = tmp_path / "run0" / "checkpoint-1" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    status, out, err = rlkit(
        *("eval", "run0", "task=arithmetic", "eval.problems=16", "eval.samples=4"),
        *("eval.k=2", "rollout.max_completion_length=14", HALF),
        cwd=tmp_path,
    )
    assert status == 0, err
    figures = json.loads(out)
    right = {key: figures[f"eval/{key}"] for key in ("pass@1", "pass@2", "greedy")}
    assert right == pytest.approx({"pass@1": 0.5, "pass@2": 5 / 6, "greedy": 0})
    assert rlkit("report", "run0", cwd=tmp_path)[1].strip().endswith("report.html")
    assert rlkit("report", "run0", "run1", "--out", "both.html", cwd=tmp_path)[0] == 0
    assert (tmp_path / "both.html").stat().st_size > 1000
    status, _, err = rlkit("report", "nothing", cwd=tmp_path)
    assert status == 2 and len(err.splitlines()) == 1


# a command, what the line must say
WRONG = [
    ("list los", "no kind of part called 'los' | 'loss'"),
    ("show los ppo", "no kind of part called 'los' | 'loss'"),
    ("show loss", "rlkit show loss needs a name | rlkit list loss"),
    ("show pppo", "nothing is called 'pppo' | 'ppo'"),
    ("show loss pppo", "no loss called 'pppo' | 'ppo' | rlkit list loss"),
    ("show algorithm remx", "no algorithm called 'remx' | 'remix' | rlkit list algorithm"),
    ("show loss grpo_behaviour", "no loss called 'grpo_behaviour' | 'grpo_behavior'"),
    ("show tuned arithmetic_ppo", "no kind of part called 'tuned' | algorithm"),
    ("list --config-dir ./nothing", "--config-dir ./nothing is no folder"),
    ("eval embedded --config-dir ./nothing", "--config-dir ./nothing is no folder"),
    ("show loss ./nothing.py:Loss", "./nothing.py does not exist"),
    ("check nothing", "./file.py:Class"),
    ("check ./nothing.py:Loss", "./nothing.py does not exist"),
    ("check ./parts.py:Loos", "./parts.py:Loos does not exist | 'Loose'"),
    ("check ./parts.py:Loose", "not registered | --kind"),
    ("check ./parts.py:Loose --kind los", "no kind of part called 'los' | 'loss'"),
    ("check ./parts.py:Loose --kind loss", "./parts.py:Loose is not a part"),
    ("eval nothing.gguf task=arithmetic", "nothing.gguf does not exist"),
    ("eval /no/such/model", "/no/such/model does not exist: there is no folder /no/such"),
    ("doctor ./nothing", "./nothing does not exist"),
    ("eval bare", "bare is a run without a checkpoint"),
    ("eval", "the following arguments are required: checkpoint; see rlkit eval --help"),
    ("doctor", "the following arguments are required: model; see rlkit doctor --help"),
    ("lisst", "invalid choice: 'lisst' | Did you mean 'list'? See rlkit --help"),
    ("report bare --metric eval/passs@1", "--metric is for comparing several runs, and only bare"),
    ("report bare --baseline x", "--baseline is for comparing several runs"),
    ("report bare --target 0.5", "--target is for comparing several runs"),
    ("report bare --out x.html", "--out is for comparing several runs"),
    ("eval embedded eval.problem=3", "eval.problem | 'eval.problems'"),
    ("eval embedded eval.k=4", "eval.k=4 | eval.samples"),
    ("eval embedded task=arithmatic", "task called 'arithmatic' | 'arithmetic'"),
    ("report nothing", "nothing does not exist"),
    ("report empty", "empty/metrics.jsonl is empty"),
    ("report broken", "broken/metrics.jsonl | not JSON"),
    ("report bare --csv table.csv", "nothing to compare"),
    ("report bare nothing", "nothing does not exist"),
    ("view nothing", "nothing does not exist"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("line", "said"), WRONG, ids=[case[0] for case in WRONG])
def test_a_wrong_command_is_one_line_and_writes_nothing(
    line: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "parts.py").write_text("class Loose:\n    pass\n")
    for folder, text in {"empty": "", "broken": "{broken\n", "bare": '{"step": 1}\n'}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metrics.jsonl").write_text(text)
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    before = sorted(tmp_path.rglob("*"))
    result = command("rlkit.__main__", *line.split(), cwd=tmp_path, env=env)
    assert result.status == 2, result.out
    assert len(result.err.splitlines()) == 1 and result.err.startswith("rlkit: "), result.err
    assert len(result.err) < 250
    for words in said.split(" | "):
        assert words in result.err, result.err
    assert sorted(tmp_path.rglob("*")) == before


# a command that is not complete or not known, what its last line must say
UNREADABLE = [
    ("", "required: command"),
    ("lst", "'lst' (choose from 'train', 'list', 'show'"),
    ("list loss ppo", "unrecognized arguments: ppo"),
    ("show", "required: kind"),
    ("check", "required: path"),
    ("eval", "required: checkpoint"),
    ("eval embedded --fast", "unrecognized arguments: --fast"),
    ("report", "required: folders"),
    ("view", "required: folders"),
]


@pytest.mark.parametrize(("line", "said"), UNREADABLE, ids=[case[0] for case in UNREADABLE])
def test_a_command_that_is_not_complete_says_what_is_wanted(
    line: str, said: str, tmp_path: Path
) -> None:
    status, out, err = rlkit(*line.split(), cwd=tmp_path)
    assert status == 2 and out == ""
    assert said in err and len(err.splitlines()) == 1 and err.startswith("rlkit: ")


@pytest.mark.parametrize("line", ["--help", "list --help", "eval --help", "report --help"])
def test_help_is_no_error(line: str, tmp_path: Path) -> None:
    status, out, err = rlkit(*line.split(), cwd=tmp_path)
    assert (status, err) == (0, "") and out.startswith("usage: rlkit")
