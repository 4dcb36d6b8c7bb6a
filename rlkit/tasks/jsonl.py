"""Problems from a file or a Hugging Face data set, with a column of answers."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypeVar

from rlkit.errors import UserError, suggest
from rlkit.interfaces import Task, TaskConfig, TaskData
from rlkit.interfaces.episodes import with_text
from rlkit.registry import register
from rlkit.tasks.read import Table, read_tables
from rlkit.tasks.split import unit_hash

ANSWER_COLUMNS = ("answer", "solution", "ground_truth", "label", "reward_model.ground_truth")

Row = Mapping[str, Any]


class FileConfig(TaskConfig):
    """Settings of where rows come from."""

    path: str | tuple[str, ...] = ""
    """A .jsonl, .json, .jsonl.gz or .parquet file, a pattern of such files (data/*.parquet), the
    name of a Hugging Face data set or a folder of one, a file inside an installed package
    (pkg://package/file); or a list of these, read in this order."""
    subset: str | None = None
    """Configuration of a Hugging Face data set ("main" of openai/gsm8k); files ignore it."""
    split: str = "train"
    """Split of a Hugging Face data set to train on; files ignore it."""
    eval_path: str | tuple[str, ...] | None = None
    """Held-out problems, given like `path`; null = hold out some of `path`."""
    eval_split: str = "test"
    """Split of a Hugging Face data set in `eval_path`; files ignore it."""
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the problems held out if there is no `eval_path`, by a hash of the prompt: copies of
    a prompt always fall on the same side."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only this many rows from the beginning of `path`, before some are held out; null =
    all."""
    suffix: str = ""
    r"""Text appended to every prompt, such as " Put the final answer in \\boxed{}."."""


FC = TypeVar("FC", bound=FileConfig, default=FileConfig)


class FileTask(Task[FC]):
    """Rows of a data set, of which some are held out.

    Held-out rows come in the order of a hash of the prompt, so the first n are a fair sample.
    """

    def load(self, seed: int) -> TaskData:
        """Read the rows, whatever the seed. Raises UserError for what is wrong with the data."""
        c = self.config
        with self.named("path"):
            table = self.table().head(c.limit)
            train = self.rows(table)
        if (held_out := self._eval_rows()) is None:
            train, held_out = hold_out(train, c.eval_fraction)
        if not train:
            raise UserError(
                f"{table.name} has a single prompt, which is held out; "
                "add some or set task.eval_path"
            )
        return TaskData(train=self._with_suffix(train), eval=self._with_suffix(held_out))

    def all_problems(self, seed: int) -> Sequence[Row]:
        """All rows of `eval_path`, or of `path` without one; in the order of held-out ones."""
        if (found := self._eval_rows()) is None:
            with self.named("path"):
                found = by_hash(self.rows(self.table().head(self.config.limit)))
        return self._with_suffix(found)

    @property
    def paths(self) -> Mapping[str, Sequence[str]]:
        """What its settings name as the places of its rows, by setting."""
        given = {"path": self.config.path, "eval_path": self.config.eval_path}
        listed = {key: [each] if isinstance(each, str) else each for key, each in given.items()}
        return {key: paths for key, paths in listed.items() if paths}

    @contextmanager
    def named(self, key: str) -> Generator[None]:
        """Errors inside begin with the setting that the rows come from."""
        try:
            yield
        except UserError as error:
            text, found = str(error).removeprefix("path="), self.paths.get(key)
            if found is None or text.startswith("task."):
                raise
            given = found[0] if len(found) == 1 else f"[{','.join(found)}]"
            rest = text.removeprefix(given) if text.startswith(given) else f": {text}"
            raise UserError(f"task.{key}={given}{rest}") from error

    def _eval_rows(self) -> list[Row] | None:
        """The rows to evaluate on, in the order of their hashes; None = hold out some."""
        with self.named("eval_path"):
            table = self.eval_table()
            return None if table is None else by_hash(self.rows(table))

    def table(self) -> Table:
        """The rows to train on, and to hold some out from."""
        c = self.config
        if not c.path:
            raise UserError("task.path is not set; give a file or data set: task.path=train.jsonl")
        return read_tables(c.path, c.subset, c.split)

    def eval_table(self) -> Table | None:
        """The rows to evaluate on; None = hold out some."""
        c = self.config
        if not c.eval_path:
            return None
        return read_tables(c.eval_path, c.subset, c.eval_split)

    @abstractmethod
    def rows(self, table: Table) -> list[Row]:
        """The rows of a table as problems. Raises UserError, with the place, for what is none."""

    def _with_suffix(self, rows: Sequence[Row]) -> Sequence[Row]:
        suffix = self.config.suffix
        return [{**r, "prompt": with_text(r["prompt"], suffix)} for r in rows] if suffix else rows


class JsonlConfig(FileConfig):
    """Settings of a data file."""

    prompt_column: str = "prompt"
    """Column with the prompts: text, or chat messages with a role and a content."""
    answer_column: str | None = None
    """Column with the answers, "outer.inner" for a nested one; null = the first one found of
    answer, solution, ground_truth, label, reward_model.ground_truth."""


@register("task", "jsonl")
class Jsonl(FileTask[JsonlConfig]):
    """Rows of a data set: `prompt`, `answer` as text, and all other columns as they are.

    Reads TRL's and verl's data unchanged. A text prompt stays text; the run makes it a chat message
    if the tokenizer has a template. Held-out problems come in the order of a hash of the prompt, so
    the first n are a fair sample.
    """

    default_rewards = ("math",)

    def rows(self, table: Table) -> list[Row]:
        """Each row with its prompt, and its answer as text."""
        answers = answer_column(table, self.config.answer_column)
        prompts = self.config.prompt_column
        check_column(table, prompts, "task.prompt_column")
        return [
            {
                **row,
                "prompt": prompt_of(lookup(row, prompts), table.place(i)),
                "answer": answer_text(lookup(row, answers), answers, table.place(i)),
            }
            for i, row in enumerate(table.rows)
        ]


def lookup(row: Row, column: str) -> Any:
    """A column, or a nested one by "outer.inner"; None if it does not exist."""
    if column in row:
        return row[column]
    outer, _, inner = column.partition(".")
    nested = row.get(outer)
    return lookup(nested, inner) if inner and isinstance(nested, Mapping) else None


def has(table: Table, column: str) -> bool:
    """Whether any row has a value in the column."""
    return any(lookup(row, column) is not None for row in table.rows)


def answer_column(table: Table, chosen: str | None) -> str:
    """The chosen column, or the first of the usual ones. Raises UserError if it is missing."""
    if chosen is not None:
        check_column(table, chosen, "task.answer_column")
        return chosen
    for column in ANSWER_COLUMNS:
        if has(table, column):
            return column
    raise UserError(
        f"{table.name} has no answer column ({', '.join(ANSWER_COLUMNS)}); "
        f"set task.answer_column. Columns: {', '.join(columns(table))}"
    )


def check_column(table: Table, column: str, key: str) -> None:
    """Raise UserError with the nearest and all known columns if no row has it."""
    if not has(table, column):
        known = columns(table)
        raise UserError(
            f"{table.name} has no column '{column}' ({key}).{suggest(column, known)} "
            f"Columns: {', '.join(known)}"
        )


def columns(table: Table) -> list[str]:
    """All columns of all rows, nested ones too."""
    found: dict[str, None] = {}
    for row in table.rows:
        for name, value in row.items():
            found[name] = None
            if isinstance(value, Mapping):
                found |= dict.fromkeys(f"{name}.{inner}" for inner in value)
    return list(found)


def prompt_of(value: Any, place: str) -> str | list[dict[str, str]]:
    """A prompt as text or messages. Raises UserError if there is none."""
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        raise UserError(f"{place} has no prompt")
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(is_message(m) for m in value):
        return [{"role": m["role"], "content": m["content"]} for m in value]
    raise UserError(f"{place}: the prompt must be text or a list of messages with role and content")


def is_message(value: Any) -> bool:
    """Whether a value is a chat message with text in it."""
    return isinstance(value, Mapping) and all(
        isinstance(value.get(key), str) for key in ("role", "content")
    )


def answer_text(value: Any, column: str, place: str) -> str:
    """An answer as text, with numbers and booleans as JSON writes them.

    Raises UserError if there is none.
    """
    if value is None:
        raise UserError(f"{place} has no answer (column '{column}')")
    if isinstance(value, str):
        return value
    if isinstance(value, (list, Mapping)):
        raise UserError(
            f"{place}: the answer (column '{column}') must be text or a number, not a list or an "
            "object; set task.answer_column"
        )
    return json.dumps(value, default=str).strip('"')


def prompt_hash(row: Row) -> float:
    """`unit_hash` of a row's prompt."""
    prompt = row["prompt"]
    return unit_hash(prompt if isinstance(prompt, str) else json.dumps(prompt))


def by_hash(rows: Sequence[Row]) -> list[Row]:
    """The rows in the order of their prompts' hashes."""
    return sorted(rows, key=prompt_hash)


def hold_out(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row]]:
    """(training, held out): hashes below the fraction are held out, the smallest in any case."""
    hashes = [prompt_hash(row) for row in rows]
    limit = max(fraction, min(hashes) + 2.0**-48)
    train = [row for row, h in zip(rows, hashes, strict=True) if h >= limit]
    return train, by_hash([row for row, h in zip(rows, hashes, strict=True) if h < limit])
