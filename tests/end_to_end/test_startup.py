"""The small things start without torch: `list`, `show`, `--help` and what is said of a mistake."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli import ROOT, Result, command, run

pytestmark = pytest.mark.slow

HEAVY = ("torch", "numpy", "transformers", "datasets", "sympy")
CALL = f"""
import sys
from importlib import import_module

sys.argv = sys.argv[1:]
try:
    status = import_module(sys.argv[0]).main()
except SystemExit as stop:
    status = stop.code
print(*sorted({{*{HEAVY}, "hydra"}} & {{*sys.modules}}), file=sys.stderr)
sys.exit(status)
"""
PLUGIN = """
from rlkit.batch import LossOutput, Term
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register


class Settings(LossConfig):
    strength: float = 1.0
    \"\"\"A number.\"\"\"


@register("loss", "{name}")
class Loss(PolicyLoss[Settings]):
    Config = Settings

    def __call__(self, policy, batch):
        return LossOutput(terms=[Term(name="policy", value=-policy.logp, mask=batch.mask)])
"""


class Started(NamedTuple):
    result: Result
    imported: list[str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the catalog in it, as after `make`."""
    folder = tmp_path_factory.mktemp("cache")
    assert start("rlkit.__main__", "list", cache=folder).result.status == 0
    assert [path.name.partition("-")[0] for path in folder.iterdir()] == ["catalog"]
    return folder


def start(module: str, *args: str, cache: Path, path: tuple[Path, ...] = ()) -> Started:
    """A command in a process of its own, and which of the heavy modules it imported."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", CALL, module, *args],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path))),
            "RLKIT_CACHE": str(cache),
        },
        cwd=cache,
        capture_output=True,
        text=True,
        check=False,
    )
    *lines, imported = done.stderr.splitlines(keepends=True)
    return Started(Result(done.returncode, done.stdout, "".join(lines)), imported.split())


RIGHT = [
    "list",
    "list loss",
    "list algorithm",
    "show loss remix",
    "show loss grpo_behavior",
    "show algorithm remix",
    "show experiment remix_paper",
    "--help",
    "list --help",
    "train --help",
]


@pytest.mark.parametrize("line", RIGHT)
def test_an_answer_of_the_small_commands(line: str, cache: Path) -> None:
    """It is the same as with every part imported, and imports neither torch nor Hydra."""
    result, imported = start("rlkit.__main__", *line.split(), cache=cache)
    assert (result.status, result.err, imported) == (0, "", [])
    assert result == command("rlkit.__main__", *line.split(), cwd=cache)


# a mistake, the words that show which one was found
WRONG = [
    ("rlkit.__main__", "list los", "'loss'"),
    ("rlkit.__main__", "show loss pppo", "'ppo'"),
    ("rlkit.__main__", "show algorithm remx", "'remix'"),
    ("rlkit.__main__", "train train.stepz=3", "'train.steps'"),
    ("rlkit.run", "train.stepz=3", "'train.steps'"),
    ("rlkit.run", "stepz=3", "unknown key stepz"),
    ("rlkit.run", "loss.epslon=0.3", "'loss.epsilon'"),
    ("rlkit.run", "loss.on_policy_clip=true", "loss=exgrpo"),
    ("rlkit.run", "reward.math.weight=2", "reward=[math]"),
    ("rlkit.run", "loss=remx", "'remix'"),
    ("rlkit.run", "correction=[tiss]", "'tis'"),
    ("rlkit.run", "algorithm=remixx", "'remix'"),
    ("rlkit.run", "+experiment=smollm2", "smollm2_cpu"),
    ("rlkit.run", "-m algorithm=remixx,grpo output_dir=out", "'remix'"),
    ("rlkit.run", "--steps 3", "train.steps=3"),
    ("rlkit.run", "~loss", "~loss is not possible"),
    ("rlkit.run", "model=gpt2", "model.name=..."),
    ("rlkit.run", "loss=[ppo,grpo]", "exactly one loss"),
    ("rlkit.run", "train.steps=1,2", "several values"),
    ("rlkit.run", "train.steps={", "cannot be read"),
    ("rlkit.run", "seed=${nothing}", "'nothing' not found"),
    ("rlkit.run", "buffer=buffer_matters buffer.c1={kind:linear}", "must be a list"),
    ("rlkit.run", "--config-dir ./nothing", "is no folder"),
]


@pytest.mark.parametrize(("module", "line", "said"), WRONG, ids=[case[1] for case in WRONG])
def test_a_mistake_is_found_without_torch(module: str, line: str, said: str, cache: Path) -> None:
    result, imported = start(module, *line.split(), cache=cache)
    assert result.status == 2 and len(result.err.splitlines()) == 1
    assert said in result.err
    assert set(imported) <= {"hydra"}
    assert result == command(module, *line.split(), cwd=cache)


def test_the_composed_configuration_is_the_same_without_torch(cache: Path) -> None:
    arguments = ("--cfg", "job", "algorithm=remix", "+experiment=remix_paper", "reward=[math]")
    result, imported = start("rlkit.run", *arguments, cache=cache)
    assert imported == ["hydra"]
    assert result == run(*arguments, cwd=cache) and "replay_fraction" in result.out


def test_the_package_itself_is_light(cache: Path) -> None:
    code = f"import rlkit, sys; rlkit.build, rlkit.names; print({{*{HEAVY}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize("argument", ["plugins=[./{}]", "loss=./{}:Loss"])
def test_the_page_of_help_and_a_mistake_know_a_users_own_part(argument: str, cache: Path) -> None:
    (cache / "own.py").write_text(PLUGIN.format(name="own_loss"))
    own = argument.format("own.py")
    result, imported = start("rlkit.run", own, "--help", cache=cache)
    assert result.status == 0 and "own_loss" in result.out.split() + result.out.split(", ")
    assert "torch" in imported
    result, _ = start("rlkit.run", own, "loss=own_loss", "loss.strenth=2", cache=cache)
    assert "'loss.strength'" in result.err


def test_a_changed_plug_in_is_listed_as_it_is_now(tmp_path: Path) -> None:
    cache, site = tmp_path / "cache", tmp_path / "site"
    info = site / "some_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    cache.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rlkit.plugins]\nmine = some_plugin\n")
    listed = []
    for name in ("first_loss", "other_loss"):
        (site / "some_plugin.py").write_text(PLUGIN.format(name=name))
        result, _ = start("rlkit.__main__", "list", "loss", cache=cache, path=(site,))
        listed.append({"first_loss", "other_loss"} & set(result.out.split()))
        again, imported = start("rlkit.__main__", "list", "loss", cache=cache, path=(site,))
        assert again == result and imported == [], shlex.join(imported)
    assert listed == [{"first_loss"}, {"other_loss"}]
