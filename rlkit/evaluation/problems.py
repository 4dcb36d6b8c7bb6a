"""The problems of an evaluation: named benchmarks, files, and how `--on` names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlkit.errors import UserError, suggest
from rlkit.evaluation.accepted import ACCEPTED, TOLERANCE
from rlkit.evaluation.benchmarks import BENCHMARKS, Benchmark
from rlkit.evaluation.golds import Key, Row, joined
from rlkit.tasks.jsonl import ANSWER_COLUMNS, answer_text, by_hash, has, lookup, prompt_of
from rlkit.tasks.read import ENDINGS, Table, read_table

PROMPT_COLUMNS = ("prompt", "problem", "question")
MORE_ANSWERS = ("final_answer", "Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something to evaluate on."""

    name: str
    """What its results are called."""
    benchmark: Benchmark | None = None
    path: str | None = None
    """A file or data set; None = the benchmark's own, or a task's problems."""

    @property
    def is_task(self) -> bool:
        """Whether it is a registered task."""
        return self.benchmark is None and self.path is None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """The problems of a target."""

    name: str
    title: str
    rows: Sequence[Row]
    """Each with `prompt` and `answer`; those of a benchmark with `accepted` and `tolerance`."""
    source: str
    """The file or data set they were read from."""
    notes: tuple[str, ...] = ()
    """What the user should know of them."""

    def first(self, limit: int | None) -> ProblemSet:
        """A fair sample of `limit` problems, the same each time: the first by a hash of the prompt.

        None = all, in the order of the file.
        """
        if limit is None or limit >= len(self.rows):
            return self
        note = f"{self.name}: a sample of {limit} of its {len(self.rows)} problems"
        return replace(self, rows=by_hash(self.rows)[:limit], notes=(*self.notes, note))


def targets(asked: str, tasks: Sequence[str]) -> list[Target]:
    """What a comma-separated list names: benchmarks, files, `name=file`, tasks.

    `name=file` reads the file as that benchmark, if there is one of that name. Raises UserError for
    unknown names and for a name that occurs twice.
    """
    words = [word.strip() for word in asked.split(",") if word.strip()]
    found = [target(word, tasks) for word in words]
    if not found:
        raise UserError(f"--on names nothing to evaluate on; benchmarks: {', '.join(BENCHMARKS)}")
    seen: set[str] = set()
    for each in found:
        if each.name in seen:
            raise UserError(f"--on names '{each.name}' twice; call a file otherwise: other=FILE")
        seen.add(each.name)
    return found


def target(word: str, tasks: Sequence[str]) -> Target:
    """What one word of `--on` names. Raises UserError if it is unknown."""
    name, equals, path = word.partition("=")
    if equals and name and path:
        return Target(name=name, benchmark=BENCHMARKS.get(name), path=path)
    if word in BENCHMARKS:
        return Target(name=word, benchmark=BENCHMARKS[word])
    if word.lower().endswith(ENDINGS) or "/" in word:
        return Target(name=Path(word).name.partition(".")[0] or word, path=word)
    if word in tasks:
        return Target(name=word)
    known = [*BENCHMARKS, *tasks]
    raise UserError(
        f"there is no benchmark, file or task '{word}' to evaluate on.{suggest(word, known)} "
        f"Benchmarks: {', '.join(BENCHMARKS)}; or a file ending in {', '.join(ENDINGS)}"
    )


def of_task(target: Target, rows: Sequence[Row], limit: int | None) -> ProblemSet:
    """The problems of a task, whose held-out rows these are, and no more than `limit`."""
    source = f"task={target.name}"
    return ProblemSet(name=target.name, title=target.name, rows=rows[:limit], source=source)


def load(target: Target, data: str | None, key: Key) -> ProblemSet:
    """The problems of a benchmark or a file; `data` is a folder with the benchmarks' files.

    Raises UserError for what cannot be read or lacks a column.
    """
    benchmark = target.benchmark
    table = table_of(target, data)
    prompts, answers = (
        column(table, PROMPT_COLUMNS),
        column(table, (*ANSWER_COLUMNS, *MORE_ANSWERS)),
    )
    rows = list(rows_of(table, prompts, answers))
    if benchmark is None:
        return ProblemSet(name=target.name, title=target.name, rows=rows, source=table.name)
    notes = []
    if len(rows) != benchmark.count:
        notes.append(
            f"{target.name} has {len(rows)} problems in {table.name}, not the usual "
            f"{benchmark.count}: its scores are not those of {benchmark.title}"
        )
    if target.name == "minerva":
        notes.append(f"{target.name} is marked with the key '{key}'")
    return ProblemSet(
        name=target.name,
        title=benchmark.title,
        rows=[marked(benchmark, row, key) for row in rows],
        source=table.name,
        notes=tuple(notes),
    )


def marked(benchmark: Benchmark, row: Row, key: Key) -> Row:
    """A benchmark's row with its prompt and what counts as right, and no other column."""
    gold = benchmark.gold(row, str(row["answer"]), key)
    kept: dict[str, Any] = {name: row[name] for name in ("id", "prompt") if name in row}
    accepted = list(gold.accepted)
    return kept | {"answer": accepted[0], ACCEPTED: accepted, TOLERANCE: gold.tolerance}


def table_of(target: Target, data: str | None) -> Table:
    """The rows of a file, of the benchmark's file in the folder `data`, or of its hub data set."""
    if target.path is not None:
        return read_table(target.path, None, "test")
    assert target.benchmark is not None
    if data is not None:
        return read_table(file_in(target.benchmark, Path(data).expanduser()), None, "test")
    hub = target.benchmark.hub
    try:
        return read_table(hub.name, hub.subset, hub.split)
    except UserError as error:
        raise UserError(
            f"{target.name}: {error}; or give a folder with {target.name}.jsonl: eval.data=FOLDER"
        ) from error


def file_in(benchmark: Benchmark, folder: Path) -> str:
    """The benchmark's file in a folder. Raises UserError if there is none."""
    stems = (benchmark.name, *benchmark.also)
    for file in (folder / (stem + ending) for stem in stems for ending in ENDINGS):
        if file.is_file():
            return str(file)
    if not folder.is_dir():
        raise UserError(f"eval.data={folder} is no folder")
    raise UserError(
        f"{folder} has no file of {benchmark.name}: {' or '.join(f'{s}.jsonl[.gz]' for s in stems)}"
    )


def column(table: Table, names: Sequence[str]) -> str:
    """The first of these columns that the table has. Raises UserError if it has none."""
    for name in names:
        if has(table, name):
            return name
    known = ", ".join(dict.fromkeys(name for row in table.rows for name in row))
    raise UserError(f"{table.name} has none of the columns {', '.join(names)}; it has: {known}")


def rows_of(table: Table, prompts: str, answers: str) -> Iterator[Mapping[str, Any]]:
    """The rows with `prompt` and `answer` as text, and their other columns."""
    for index, row in enumerate(table.rows):
        place = table.place(index)
        yield {
            **row,
            "prompt": prompt_of(lookup(row, prompts), place),
            "answer": answer_text(joined(lookup(row, answers)), answers, place),
        }
