"""The generated pages of docs/ say what the code says."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from rlkit.registry import Entry, entry, names
from tests.compositions import composed

DOCS = Path(__file__).resolve().parent.parent / "docs"


def generator(name: str = "generate") -> ModuleType:
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))  # they import each other, as scripts do
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_current() -> None:
    for name, text in generator().pages().items():
        assert (DOCS / name).read_text() == text.rstrip() + "\n", "run `python docs/generate.py`"


def test_a_paper_has_its_parts_its_commands_and_what_is_uncertain() -> None:
    rows = {row[0].split("]")[0][1:]: row[1:] for row in generator("papers").papers()}
    parts, commands, near, code = rows["2601.22718"]
    assert parts == "`loss=minpro`" and commands == "`algorithm=minpro`"
    assert near == "exact, some values unconfirmed" and code.startswith("none was found")
    assert "`+experiment=oapl_paper`" in rows["2602.19362"][1]
    assert rows["2604.18916"][2].startswith("adapted")


def test_how_near_a_part_is_does_not_depend_on_where_its_lines_break() -> None:
    build = generator("papers")
    for words in ("adapted from it", "our choice, after its idea"):
        for broken in (words, words.replace(" ", "\n    ")):
            near = build.nearness_in(f"The idea.\n\nStatus: {broken}.")
            assert near == ("adapted" if "adapted" in words else "choice")
    rows = {row[0].split("]")[0][1:]: row[1:] for row in build.papers()}
    assert rows["2010.09536"][0] == "`advantage=gae_age`" and rows["2010.09536"][2] == "choice"
    assert rows["1506.02438"][2] == "exact; choice: `advantage=gae_age`"


def test_every_paper_of_a_part_or_a_composition_is_in_the_table() -> None:
    build = generator("papers")
    found = {row[0].split("]")[0][1:] for row in build.papers()}
    assert found >= {p for k in PART_KINDS for n in names(k) for p in entry(k, n).cls.sources}
    assert found >= {
        p for *_, comment in build.compositions() for p in build.NUMBER.findall(comment)
    }
    assert not found & {number for number, *_ in build.NOT_BUILT}


def test_the_page_of_measurements_is_that_of_the_results() -> None:
    text = generator("performance").page()
    assert (DOCS / "performance.md").read_text() == text, "run `python docs/performance.py`"


def test_each_section_of_measurements_names_its_command_until_it_has_tables(tmp_path: Path) -> None:
    """A file without tables is not a measurement of the page."""
    build = generator("performance")
    (tmp_path / "logprob.json").write_text('{"an older size": {}}')
    text = build.page(tmp_path)
    for each in build.SECTIONS:
        script = f"benchmarks/{each.script}.py"
        assert each.how.startswith(f"`python {script}") and (DOCS.parent / script).exists()
        assert f"## {each.title}\n\n{each.about}\n\nNot measured yet: {each.how}.\n" in text


def test_the_table_has_every_composition_once_and_nothing_else() -> None:
    """A file with one default is an old name of another."""
    page = (DOCS / "compositions.md").read_text()
    files = (DOCS.parent / "configs" / "algorithm").glob("*.yaml")
    read = {path.stem: yaml.safe_load(path.read_text())["defaults"] for path in files}
    wanted = sorted(name for name, defaults in read.items() if len(defaults) > 1)
    found = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert found == wanted, "run `python benchmarks/embedded_compositions.py`"
    assert "| NO |" not in page


@pytest.mark.slow
def test_the_table_shows_the_parts_that_the_compositions_have() -> None:
    page = (DOCS / "compositions.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", page, re.MULTILINE)
    stale = []
    for name, cells in rows:
        raw = composed(f"algorithm={name}").raw
        loss = " + ".join([raw["loss"]["name"], *(raw.get("correction") or {})])
        parts = [raw[kind]["name"] for kind in ("advantage", "buffer", "anchor", "schedule")]
        if [cell.strip() for cell in cells.split("|")][:5] != [loss, *parts]:
            stale.append(name)
    assert len(rows) > 70 and stale == [], "run `python benchmarks/embedded_compositions.py`"


@pytest.mark.parametrize("kind", ["loss", "correction"])
def test_every_loss_and_correction_names_its_source_and_public_code(kind: str) -> None:
    build = generator()
    for name in names(kind):
        found = entry(kind, name)
        about = build.file_documentation(found) + build.documentation(found)
        assert "arXiv:" in about or "Public code" in about, name


PART_KINDS = ("loss", "advantage", "correction", "buffer", "anchor", "schedule")
NO_PAPER = re.compile(r"Source: |Public code: (?!none)|Status: (exact|our choice)")
"""What the documentation of a part without a paper says: where it is from, or that it is ours."""


@pytest.mark.parametrize("kind", PART_KINDS)
def test_every_part_declares_its_papers_and_names_them(kind: str) -> None:
    """In its class, or as a variant of a registered part; each in its documentation too."""
    build = generator()
    classes = {entry(kind, name).cls for name in names(kind)}
    for name in names(kind):
        found = entry(kind, name)
        assert "sources" in vars(found.cls) or found.cls.__base__ in classes, name
        about = build.file_documentation(found) + build.documentation(found)
        for number in found.cls.sources:
            assert re.fullmatch(r"\d{4}\.\d{5}", number) and f"arXiv:{number}" in about, name
        assert found.cls.sources or NO_PAPER.search(about), f"{name} says nothing of its source"


def test_a_paper_is_credited_because_it_is_declared_and_not_because_it_is_named() -> None:
    """VIPO's documentation names the paper of another method of that name."""
    build = generator()
    vipo = entry("loss", "vipo")
    assert "arXiv:2504.11944" in build.documentation(vipo)
    assert build.sources(vipo) == "[2410.22891](https://arxiv.org/abs/2410.22891)"
    assert "2504.11944" not in build.pages()["losses.md"].partition("\n## ")[0]


def test_the_table_of_compositions_credits_each_with_the_first_paper_of_its_loss() -> None:
    lines = (DOCS / "concepts.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| composition |"))
    end = lines.index("", start)
    table = [line[2:-2].split(" | ") for line in lines[start + 2 : end]]
    assert len(table) > 5
    for row in table:
        number = entry("loss", row[1].strip("`")).cls.sources[0]
        assert row[-1] == f"[{number}](https://arxiv.org/abs/{number})", row[0]


@pytest.mark.parametrize("kind", ["buffer", "anchor", "schedule"])
def test_every_buffer_anchor_and_schedule_says_how_near_it_is_to_its_source(kind: str) -> None:
    """In its class or its file, and in its line of the page's table."""
    build = generator()
    page = build.pages()[f"{kind}s.md"]
    for name in names(kind):
        said = build.status(entry(kind, name))
        assert said in {"exact", "adapted", "choice"}, name
        line = next(x for x in page.splitlines() if x.startswith(f"| `{name}` |"))
        assert line.endswith(f" | {said} |"), line


def test_what_a_class_says_of_itself_goes_before_what_its_file_says() -> None:
    """`anchors/previous.py` and `anchors/lagged.py` say it in the file, the schedules in the class;
    in one file `plateau` is ours and `prorl` adapted."""
    build = generator()
    expected = {
        ("schedule", "plateau"): "choice",
        ("schedule", "prorl"): "adapted",
        ("anchor", "previous"): "choice",
        ("anchor", "lagged"): "exact",
    }
    assert {key: build.status(entry(*key)) for key in expected} == expected


def test_a_part_that_does_not_say_it_is_named() -> None:
    class Silent:
        """Says nothing of its source. Not exact."""

        __module__ = "rlkit.interfaces.part"

    with pytest.raises(ValueError, match=r"rlkit\.interfaces\.part:.*Silent needs `Status: exact`"):
        generator().status(Entry("buffer", "silent", Silent))
