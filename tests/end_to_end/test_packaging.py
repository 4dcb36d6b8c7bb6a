"""The wheel: what is in it, and that it runs from another folder without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import rlkit
from rlkit.models import embedded, embedded_calls

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"rlkit", "algorithms", "buffers", "anchors", "schedules"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the sdist, as `build` does by default."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of a fresh environment that holds the wheel and sees this one's dependencies.

    A path named in a .pth file is searched but its own .pth files are not, so an editable install
    of the checkout stays out.
    """
    env = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    python = env / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = env.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return env / "bin"


def call(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    whole = {**inherited, **(env or {})}
    done = subprocess.run(command, cwd=cwd, env=whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_five_packages_and_the_configs_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    info = f"rlkit_rft-{rlkit.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == PACKAGES | {info}
    configs = {str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.yaml")}
    assert configs and {f"rlkit/{path}" for path in configs} <= set(names)
    bases = (embedded.SHIPPED, embedded_calls.SHIPPED)
    base = {str(p.relative_to(ROOT)) for folder in bases for p in folder.iterdir()}
    assert base and base <= set(names)
    assets = {str(p.relative_to(ROOT)) for p in (ROOT / "rlkit/pages/assets").iterdir()}
    assert assets and assets <= set(names)
    other = (info, *base, *assets)
    kinds = {Path(name).suffix for name in names if not name.startswith(other)}
    assert kinds <= {".py", ".yaml", ".typed", ".jsonl", ""}
    sources = {str(p.relative_to(ROOT)) for name in PACKAGES for p in (ROOT / name).rglob("*.py")}
    assert sources <= set(names)
    assert f"{info}/licenses/LICENSE" in names


def test_the_installed_package_is_the_wheels_own(installed, tmp_path):
    code = "import rlkit, buffers; print(rlkit.__version__, rlkit.__file__, buffers.__file__)"
    version, *files = call(installed / "python", "-c", code, cwd=tmp_path).split()
    assert version == rlkit.__version__
    assert all(Path(file).is_relative_to(installed.parent) for file in files)


def test_the_installed_package_brings_the_embedded_model(installed, tmp_path):
    code = "from rlkit.models.embedded import embedded_model_dir; print(embedded_model_dir())"
    env = {"RLKIT_CACHE": str(tmp_path / "cache"), "RLKIT_BASE_SHIFT": "0"}
    folder = Path(call(installed / "python", "-c", code, cwd=tmp_path, env=env).strip())
    assert folder.is_relative_to(installed.parent)
    assert {p.name for p in folder.iterdir()} == {p.name for p in embedded.SHIPPED.iterdir()}
    assert list(tmp_path.iterdir()) == []


def test_the_parts_are_listed_from_another_folder(installed, tmp_path):
    by_module = call(installed / "python", "-m", "rlkit", "list", "loss", cwd=tmp_path).split()
    by_script = call(installed / "rlkit", "list", "loss", cwd=tmp_path).split()
    assert "remix" in by_module
    assert by_script == by_module


def test_the_main_job_composes_from_another_folder_and_writes_nothing(installed, tmp_path):
    arguments = ("algorithm=remix", "buffer=fifo", "anchor=kl_convex", "train.steps=1")
    run = (installed / "python", "-m", "rlkit.run", *arguments, "dry_run=true")
    assert "buffer=fifo" in call(*run, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
