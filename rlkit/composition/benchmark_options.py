"""The options of `rlkit eval --on` and `--suite`: what is asked, and how it is sampled."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from rlkit.errors import UserError, suggest
from rlkit.evaluation.benchmarks import BENCHMARKS, SUITES, Suite
from rlkit.evaluation.golds import KEYS, Key

TEMPERATURE, TOP_P, MAX_TOKENS, RESPONSES = 0.6, 0.95, 2048, 256
"""Defaults apart from suites: DeepSeek-R1's temperature and nucleus, Qwen2.5-Math's length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was given; None = the suite's setting or the default."""

    on: str | None = None
    suite: str | None = None
    data: str | None = None
    template: str | None = None
    key: Key | None = None
    samples: int | None = None
    greedy: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    k: tuple[int, ...] | None = None
    limit: int | None = None
    chunk: int | None = None
    out: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether there are named benchmarks to evaluate on."""
        return self.on is not None or self.suite is not None

    @property
    def of_suite(self) -> Suite | None:
        """The suite. Raises UserError if it is unknown."""
        if self.suite is None:
            return None
        if self.suite not in SUITES:
            raise UserError(
                f"there is no suite '{self.suite}'.{suggest(self.suite, SUITES)} "
                f"Suites: {', '.join(SUITES)}"
            )
        return SUITES[self.suite]


def number(kind: Callable[[str], Any], low: float, high: float, strict: bool = False) -> Any:
    """A parser of numbers in [low, high], or in (low, high]."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high or (strict and value == low):
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"'{text}' is not {what} {bounds(low, high, strict)}")
        return value

    return parse


def bounds(low: float, high: float, strict: bool) -> str:
    """The bounds in words."""
    lowest = f"above {low:g}" if strict else f"of at least {low:g}"
    return lowest if high == float("inf") else f"{lowest} and at most {high:g}"


def whole_numbers(text: str) -> tuple[int, ...]:
    """Numbers from 1, separated by commas, in brackets or not."""
    parse = number(int, 1, float("inf"))
    return tuple(sorted({parse(part.strip()) for part in text.strip("[] ").split(",")}))


def switch(text: str) -> bool:
    """true or false."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


INFINITY = float("inf")
COUNT = number(int, 1, INFINITY)
PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "on": (
        str,
        f"what to evaluate on, with commas: {', '.join(BENCHMARKS)}, FILE.jsonl, "
        "NAME=FILE, or a task",
    ),
    "suite": (str, "a paper's benchmarks with its settings: " + ", ".join(SUITES)),
    "data": (str, "a folder with <benchmark>.jsonl[.gz]; without it the Hugging Face hub is asked"),
    "template": (str, "prompt template: chat, plain, none, qwen2.5-math, deepseek-r1, remix"),
    "key": (str, f"whose answers Minerva is marked with: {', '.join(KEYS)}"),
    "samples": (number(int, 0, INFINITY), "sampled responses per problem, 0 = greedy ones alone"),
    "temperature": (number(float, 0, INFINITY), f"default {TEMPERATURE}; 0 = greedy alone"),
    "top_p": (number(float, 0, 1, strict=True), f"nucleus mass, default {TOP_P}; 1 = off"),
    "top_k": (number(int, 0, INFINITY), "most probable tokens kept, 0 = all (default)"),
    "max_tokens": (COUNT, f"most tokens of a response, default {MAX_TOKENS}"),
    "k": (whole_numbers, "the k of pass@k and maj@k, default 1,2,4,... up to --samples"),
    "limit": (COUNT, "a fair sample of this many problems of each"),
    "chunk": (COUNT, f"responses generated and saved at once, default {RESPONSES}"),
}
"""Every option with a value: how it is read, and what it is."""
SETTINGS = {
    "eval.on": "on",
    "eval.data": "data",
    "eval.template": "template",
    "eval.samples": "samples",
    "eval.greedy": "greedy",
    "eval.k": "k",
    "eval.problems": "limit",
    "eval.on_problems": "limit",
    "eval.key": "key",
    "eval.sampling.temperature": "temperature",
    "eval.sampling.top_p": "top_p",
    "eval.sampling.top_k": "top_k",
    "eval.sampling.max_completion_length": "max_tokens",
}
"""Settings of an evaluation during training that mean the same as an option."""


SWITCHES = ("--greedy",)
"""The options without a value."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Let a command take the options."""
    group = command.add_argument_group("named benchmarks (docs/evaluation.md)")
    for name, (parse, text) in PARSERS.items():
        group.add_argument(flag(name), type=parse, metavar=name.upper(), help=text)
    group.add_argument(
        "--greedy", action="store_true", default=None, help="answer each problem greedily too"
    )


def flag(name: str) -> str:
    """The option's name on the command line."""
    return "--" + name.replace("_", "-")


def valued_flags() -> tuple[str, ...]:
    """The options that are followed by a value."""
    return tuple(map(flag, PARSERS))


def options_of(
    arguments: argparse.Namespace, overrides: Sequence[str]
) -> tuple[Options, list[str]]:
    """The options given, and the overrides that are not among them.

    `eval.samples=8` beside `--on` is the option `--samples 8`; the option itself comes first.
    Raises UserError for a value that cannot be.
    """
    given = {name: getattr(arguments, name, None) for name in (*PARSERS, "greedy", "out")}
    if not (given["on"] or given["suite"]):
        check_alone(name for name, value in given.items() if name != "out" and value is not None)
        return Options(), list(overrides)
    rest = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        name = SETTINGS.get(key)
        if name is None:
            rest.append(override)
        elif given[name] is None:
            given[name] = read(name, key, value)
    if given["key"] is not None and given["key"] not in KEYS:
        raise UserError(f"--key {given['key']}: the keys are {', '.join(KEYS)}")
    return greedy_alone(Options(**given)), rest


def check_alone(names: Iterable[str]) -> None:
    """Raise UserError for an option that means something beside --on and --suite alone."""
    for name in names:
        raise UserError(f"{flag(name)} is for named benchmarks: add --on or --suite")


def read(name: str, key: str, value: str) -> Any:
    """An override's value as the option's. Raises UserError for one that cannot be."""
    plain = yaml.safe_load(value)
    if plain is None:
        return None
    text = ",".join(map(str, plain)) if isinstance(plain, list) else str(plain)
    try:
        return (switch if name == "greedy" else PARSERS[name][0])(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{key}={value}: {error}") from None


def greedy_alone(options: Options) -> Options:
    """Temperature 0 means greedy responses alone, as no samples do.

    Raises UserError if there are no responses at all.
    """
    if options.temperature == 0:
        options = replace(options, samples=0, temperature=None)
    if options.samples == 0 and options.greedy is False:
        raise UserError("no samples and eval.greedy=false: there is nothing to evaluate")
    return replace(options, greedy=True) if options.samples == 0 else options
