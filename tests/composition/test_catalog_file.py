"""The catalog says what the registry says, and is made anew after anything it depends on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlkit import registry
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.composition import catalog_file
from rlkit.composition.catalog import Catalog, of_registry
from rlkit.composition.catalog_file import KEPT, catalog, catalog_path, digest, kept
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.plugins import KINDS, LIST_KINDS, PART_PACKAGES
from rlkit.registry import entry, names, register


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("RLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _none_in_memory() -> Iterator[None]:
    kept.cache_clear()
    yield
    kept.cache_clear()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small installation: a file in each package."""
    home = tmp_path / "home"
    for name in ("rlkit", *PART_PACKAGES):
        (home / name / "inner").mkdir(parents=True)
        (home / name / "inner" / "part.py").write_text("x = 1\n")
    monkeypatch.setattr(catalog_file, "HOME", home)
    return home


def refuse() -> Catalog:
    raise AssertionError("the parts are imported")


def test_what_is_read_from_disk_is_what_is_registered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = kept()
    kept.cache_clear()
    monkeypatch.setattr(catalog_file, "of_registry", refuse)
    read = kept()
    assert read == made == of_registry()
    for kind in KINDS:
        assert read.names(kind) == names(kind)
        for name in names(kind):
            found, part = entry(kind, name), read.part(kind, name)
            assert part.import_path == found.import_path and part.source == str(found.source)
            assert part.node == {"name": name, **found.config().model_dump(mode="json")}
            assert [each.name for each in part.settings] == list(found.config.model_fields)
            assert part.section == (f"{kind}.{name}" if kind in LIST_KINDS else kind)
            assert part.documentation.splitlines()[0] in (found.cls.__doc__ or "")
            assert part.file_documentation


def test_a_part_of_a_user_is_in_the_catalog(folder: Path, own_registry: None) -> None:
    kept()

    class Own(PolicyLoss[LossConfig]):
        """Mine."""

        Config = LossConfig

        def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
            raise AssertionError("the catalog builds no part")

    register("loss", "of_a_user")(Own)
    assert catalog().part("loss", "of_a_user").documentation == "Mine."


def test_no_part_is_imported_for_the_kept_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = kept()
    kept.cache_clear()
    monkeypatch.setattr(registry, "_table", {})
    monkeypatch.setattr(catalog_file, "of_registry", refuse)
    assert catalog() == made


@pytest.mark.parametrize("package", ["rlkit", *PART_PACKAGES])
def test_a_change_of_any_source_file_is_another_catalog(package: str, sources: Path) -> None:
    path = sources / package / "inner" / "part.py"
    before, times = digest(), path.stat()
    path.write_text("x = 2\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = digest()
    path.write_text("x = 1\n")
    assert digest() == before, "the contents count, not the time"
    new = path.with_name("new.py")
    new.write_text("x = 1\n")
    added = digest()
    path.rename(path.with_name("other.py"))
    assert len({before, changed, added, digest()}) == 4


def test_what_lies_in_no_source_file_is_the_same_catalog(sources: Path) -> None:
    before = digest()
    (sources / "rlkit" / "inner" / "notes.txt").write_text("x")
    (sources / "algorithms" / "__pycache__").mkdir()
    (sources / "algorithms" / "__pycache__" / "part.pyc").write_bytes(b"x")
    assert digest() == before


@pytest.mark.parametrize("as_package", [True, False])
def test_a_change_of_a_plug_in_is_another_catalog(
    as_package: bool, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    info = site / "some_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    code = site / "some_plugin" / "parts.py" if as_package else site / "some_plugin.py"
    code.parent.mkdir(exist_ok=True)
    (code.parent / "__init__.py").touch() if as_package else None
    code.write_text("raise AssertionError('the plug-in is imported')\n")
    seen = [digest()]
    monkeypatch.syspath_prepend(site)
    seen.append(digest())
    module = "some_plugin.parts" if as_package else "some_plugin"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rlkit.plugins]\nmine = {module}\n")
    seen.append(digest())
    (info / "entry_points.txt").write_text(f"[rlkit.plugins]\nours = {module}\n")
    seen.append(digest())
    code.write_text("raise AssertionError('imported, changed')\n")
    seen.append(digest())
    info.rename(site / "some_plugin-1.1.dist-info")
    seen.append(digest())
    assert len(set(seen)) == len(seen) == 6


def test_another_version_of_any_package_is_another_catalog(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "anything-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(site)
    before = digest()
    (site / "anything-1.0.dist-info").rename(site / "anything-1.1.dist-info")
    assert digest() != before


def test_a_cache_that_cannot_be_written_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("RLKIT_CACHE", str(tmp_path / "file"))
    assert kept() == of_registry()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"parts": {"loss": 3}}', '{"parts": {}}'])
def test_a_damaged_catalog_is_made_anew(damaged: str, folder: Path) -> None:
    made = kept()
    catalog_path().write_text(damaged)
    kept.cache_clear()
    assert kept() == made
    assert Catalog.from_json(catalog_path().read_text()) == made


def test_the_oldest_catalogs_of_an_installation_go(folder: Path) -> None:
    kept()
    path = catalog_path()
    prefix = path.name.rpartition("-")[0]
    path.unlink()
    for age in range(KEPT + 2):
        old = folder / f"{prefix}-{age}.json"
        old.write_text("{}")
        os.utime(old, ns=(10**9 * (100 - age),) * 2)
    (folder / "catalog-of-another-installation.json").write_text("{}")
    kept.cache_clear()
    kept()
    left = sorted(file.name for file in folder.iterdir())
    newest = [f"{prefix}-{age}.json" for age in range(KEPT - 1)]
    assert left == sorted([*newest, path.name, "catalog-of-another-installation.json"])
