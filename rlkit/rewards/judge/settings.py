"""Settings of the judge."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rlkit.interfaces import RewardConfig
from rlkit.rewards.judge.template import COMPLETION, names_in

TEMPLATE = """\
You judge a response to a task.

Task:
{prompt}

Response:
{completion}

Say in a few sentences how well the response does what the task asks for. End with a line \
"Score: N", where N is a whole number from 0 (useless) to 10 (perfect)."""
PATTERN = r"(?i)\bscore[^\w\n]{0,8}?(-?\d+(?:\.\d+)?)"
OURS = ("model", "messages", "stream", "n", "temperature", "top_p", "max_tokens")
"""Keys of a request that `extra` may not set."""


class JudgeConfig(RewardConfig):
    """Settings of `judge`."""

    address: str = "http://127.0.0.1:8000/v1"
    """The endpoint, without `/chat/completions`: that of `vllm serve`, or of any server with
    OpenAI's interface. Another one with the same model gives the same answers: it may change when a
    run is resumed."""
    model: str | None = None
    """The judging model as the endpoint calls it; null = the only one that it serves."""
    key_variable: str | None = None
    """The name of an environment variable with the key; null = none is sent. A key is never read
    from the configuration, logged, or stored."""
    template: str = TEMPLATE
    """What the judge is asked. {prompt}, {completion} and {a column of the task} are filled in; a
    row where one of them is null has no score. Doubled braces are braces."""
    system: str | None = None
    """A system message before it; null = none."""
    pattern: str = PATTERN
    """A regular expression whose first group is the score; the last match in the answer that has
    one counts."""
    field: Annotated[str, Field(min_length=1)] | None = None
    """The score is this field of the last JSON object in the answer that has it; null = `pattern`
    finds it."""
    values: dict[str, float] | None = None
    """What words stand for, such as {yes:1,no:0}; null = the score is a number."""
    lowest: float = 0.0
    """The lowest score. An answer with a score outside its range counts as one without."""
    highest: float = 10.0
    """The highest score."""
    scale: bool = True
    """Whether a score becomes (score - lowest) / (highest - lowest), from 0 to 1."""
    unparsed: Literal["none", "error"] = "none"
    """What an answer without a score means: none = the response has no score from this reward, and
    counts in reward/unparsed; error = the run stops."""
    failed: Literal["error", "none"] = "error"
    """What a request that fails in all its tries means: error = the run stops, and goes on with
    resume=auto; none = the response has no score, and counts in reward/errors or
    reward/timeouts."""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """Sampling temperature of the judge; null = the endpoint's own."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus mass of the judge; null = the endpoint's own."""
    max_tokens: Annotated[int, Field(ge=1)] | None = 1024
    """Most tokens of an answer; null = the endpoint's own limit."""
    extra: dict[str, Any] | None = None
    """Further keys of each request, such as {seed:1} or {chat_template_kwargs:{enable_thinking:
    false}}; null = none."""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Requests in progress."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds that a try may take."""
    tries: Annotated[int, Field(ge=1)] = 5
    """Tries of a request that is not answered in time, or answered with status 408, 409, 425, 429
    or 5xx."""
    backoff: Annotated[float, Field(ge=0)] = 1.0
    """Seconds before the second try, doubled each time; a server's Retry-After, up to `timeout`,
    counts if it is longer."""
    cache: bool = True
    """Whether answers are kept on disk and asked for once, in this run and in others. A resumed run
    then gets the scores it had, whatever the judge would say now."""
    cache_dir: str | None = None
    """The folder of the file with the answers; null = `judge` in rlkit's cache."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        try:
            parts, _ = urlsplit(address), urlsplit(address).port
        except ValueError:
            parts = urlsplit("")
        if parts.username is not None or parts.password is not None or parts.query:
            raise ValueError(
                "address must hold no key or password, which the run would store: name an "
                "environment variable in key_variable"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"address={address} is not one like http://127.0.0.1:8000/v1")
        return address.rstrip("/").removesuffix("/chat/completions")

    @field_validator("key_variable")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError(
                "key_variable must be the name of an environment variable, in upper case, such as "
                "OPENAI_API_KEY; the key itself stays there"
            )
        return name

    @field_validator("template")
    @classmethod
    def _shows_the_completion(cls, template: str) -> str:
        try:
            names = names_in(template)
        except ValueError as error:
            raise ValueError(f"template: {error}") from None
        if COMPLETION not in names:
            raise ValueError("template must hold {completion}: else the judge never sees it")
        return template

    @field_validator("pattern")
    @classmethod
    def _has_a_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"pattern={pattern} is no regular expression: {error}") from None
        if groups < 1:
            raise ValueError(f"pattern={pattern} needs a group, in (), around the score")
        return pattern

    @field_validator("values")
    @classmethod
    def _stands_for_something(cls, values: dict[str, float] | None) -> dict[str, float] | None:
        if values is not None and len({name.lower() for name in values}) < max(1, len(values)):
            raise ValueError("values must hold words, which differ in more than upper case")
        return values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest={self.lowest:g} must be below highest={self.highest:g}")
        for word, value in (self.values or {}).items():
            if not self.lowest <= value <= self.highest:
                raise ValueError(
                    f"values: {word} stands for {value:g}, which is not from "
                    f"lowest={self.lowest:g} to highest={self.highest:g}"
                )
        known = [key for key in self.extra or () if key in OURS]
        if known:
            raise ValueError(f"extra cannot set {known[0]}, which the judge sets itself")
        return self
