"""The generated pages of docs/ say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from rlkit.registry import entry, names

DOCS = Path(__file__).resolve().parent.parent / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_current() -> None:
    for name, text in generator().pages().items():
        assert (DOCS / name).read_text() == text.rstrip() + "\n", "run `python docs/generate.py`"


def test_every_composition_is_in_the_table() -> None:
    page = (DOCS / "compositions.md").read_text()
    for path in (DOCS.parent / "configs" / "algorithm").glob("*.yaml"):
        assert f"| `{path.stem}` |" in page, "run `python benchmarks/embedded_compositions.py`"
    assert "| NO |" not in page


@pytest.mark.parametrize("kind", ["loss", "correction"])
def test_every_loss_and_correction_names_its_source_and_public_code(kind: str) -> None:
    build = generator()
    for name in names(kind):
        found = entry(kind, name)
        about = build.file_documentation(found) + build.documentation(found)
        assert "arXiv:" in about or "Public code" in about, name
