"""How a policy writes calls of tools: a reader for each of the common formats."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rlkit.environments.answers import writable
from rlkit.environments.rendering import COMPACT, REFUSALS
from rlkit.errors import UserError, suggest
from rlkit.interfaces import CallParser, Said, ToolCall
from rlkit.tasks.encode import special_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Schemas = Sequence[Mapping[str, Any]]
CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
FUNCTION = re.compile(r"\s*<function=([^>\s]+)>(.*?)(?:</function>\s*)?$", re.DOTALL)
PARAMETER = re.compile(
    r"<parameter=([^>\s]+)>\n?(.*?)(?:\n?</parameter>|(?=<parameter=)|$)", re.DOTALL
)
NAMED_CALL = re.compile(r"\s*([\w.-]+)(?:\[CALL_ID\](\w+))?(?:\[ARGS\])?\s*(\{.*)", re.DOTALL)
PYTHON_TAG = "<|python_tag|>"
CALLS_MARK = "[TOOL_CALLS]"
CALL_ID = re.compile(r"[A-Za-z0-9]{9}")
"""Ids that every template takes: Mistral's raise for another one."""
SIGNS = (
    ("qwen_xml", "<function="),
    ("mistral", CALLS_MARK),
    ("hermes", "<tool_call>"),
    ("llama3", PYTHON_TAG),
    ("llama3", '"parameters"'),
    ("compact", COMPACT),
)
"""What a chat template that teaches a format holds, the most special first."""


def call_parser(tokenizer: PreTrainedTokenizerBase, form: str = "auto") -> CallParser:
    """The reader of a model's turns.

    `form` is a name in `FORMATS`; "template" = the tokenizer's own response template; auto = that,
    if it has one, else what the chat template shows. Raises UserError if it shows none.
    """
    if form == "auto":
        form = format_of(tokenizer)
    if form == "template":
        return _template_parser(tokenizer)
    if form not in FORMATS:
        known = ["auto", "template", *FORMATS]
        raise UserError(
            f"there is no format of calls '{form}'.{suggest(form, known)} Known: {', '.join(known)}"
        )
    read, special = FORMATS[form], special_texts(tokenizer)

    def parse(text: str, schemas: Schemas) -> Said:
        return read(without_end(text, special), schemas)

    return parse


def format_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The format of calls that a tokenizer's templates show. Raises UserError if they show none."""
    if getattr(tokenizer, "response_template", None) is not None:
        return "template"
    template = tokenizer.chat_template or ""
    for form, sign in SIGNS:
        if sign in str(template):
            return form
    raise UserError(
        "the chat template does not show how this model calls tools; say it by "
        f"turns.call_format={'|'.join(('template', *FORMATS))}, or use a model that was trained to"
    )


def without_end(text: str, special: Sequence[str]) -> str:
    """A turn without the special tokens behind it."""
    while True:
        text = text.rstrip()
        token = next((t for t in special if text.endswith(t)), None)
        if token is None:
            return text
        text = text.removesuffix(token)


def read_nothing(text: str, schemas: Schemas) -> Said:
    """No calls: a turn is what it says."""
    reasoning, text = thoughts(text)
    return Said(content=text.strip(), reasoning=reasoning)


def read_compact(text: str, schemas: Schemas) -> Said:
    """A turn `...?12+34`: what is behind the last "?" is the one argument of the one tool."""
    content, mark, argument = text.rpartition("?")
    if not mark or not schemas:
        return Said(content=text)
    function = schemas[0]["function"]
    (name, *_) = function["parameters"]["properties"]
    return Said(
        content=content, calls=[ToolCall(name=function["name"], arguments={name: argument})]
    )


def read_hermes(text: str, schemas: Schemas) -> Said:
    """Hermes, Qwen 2.5 and 3: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""
    return _tagged(text, lambda inner: call_of(inner))


def read_qwen_xml(text: str, schemas: Schemas) -> Said:
    """Qwen 3 Coder and 3.5, Nemotron 3: `<tool_call><function=f><parameter=x>...` as XML.

    A parameter whose type is not string is read as JSON, if it is JSON.
    """
    types = {
        schema["function"]["name"]: schema["function"]["parameters"].get("properties", {})
        for schema in schemas
    }

    def read(inner: str) -> ToolCall:
        function = FUNCTION.fullmatch(inner.rstrip())
        if function is None:
            raise ValueError("<function=name> is missing")
        name, body = function.groups()
        known = types.get(name, {})
        return ToolCall(
            name=name,
            arguments={
                key: _typed(value, known.get(key, {})) for key, value in PARAMETER.findall(body)
            },
        )

    return _tagged(text, read)


def read_mistral(text: str, schemas: Schemas) -> Said:
    """Mistral: `[TOOL_CALLS] [{"name": ..., "arguments": ..., "id": ...}]`, or `name[ARGS]{}`."""
    content, *pieces = text.split(CALLS_MARK)
    calls: list[ToolCall] = []
    errors: list[str] = []
    for piece in pieces:
        try:
            calls += _mistral_calls(piece, len(calls))
        except (ValueError, RecursionError) as error:
            errors.append(str(error))
            content += CALLS_MARK + piece
    return Said(content=content.strip(), calls=calls, errors=errors)


def read_llama3(text: str, schemas: Schemas) -> Said:
    """Llama 3: a turn that is nothing but `{"name": ..., "parameters": {...}}`, or several of them.

    A turn that begins with <|python_tag|> must be such calls; another one may be any text.
    """
    tagged = text.lstrip().startswith(PYTHON_TAG)
    rest = text.replace(PYTHON_TAG, "").strip()
    if not tagged and not re.match(r'\{\s*"name"', rest):
        return Said(content=text.strip())
    calls: list[ToolCall] = []
    try:
        while rest:
            value, size = json.JSONDecoder(strict=False).raw_decode(rest)
            calls.append(_checked(value))
            rest = rest[size:].lstrip("; \n")
    except (ValueError, RecursionError) as error:
        return Said(content=rest, calls=calls, errors=[_why(error)])
    return Said(content="", calls=calls)


FORMATS: Mapping[str, Callable[[str, Schemas], Said]] = {
    "hermes": read_hermes,
    "qwen_xml": read_qwen_xml,
    "llama3": read_llama3,
    "mistral": read_mistral,
    "compact": read_compact,
    "none": read_nothing,
}
"""The readers by name: of a turn without the special tokens behind it."""


def thoughts(text: str) -> tuple[str | None, str]:
    """What a turn thinks, and what it says behind that: calls among thoughts are none.

    The opening <think> may stand in the prompt. Thoughts that do not end leave nothing to say.
    """
    before, end, behind = text.partition("</think>")
    if not end and not text.lstrip().startswith("<think>"):
        return None, text
    return before.replace("<think>", "", 1).strip(), behind


def call_of(text: str) -> ToolCall:
    """A call as JSON. Raises ValueError with the reason if it is none."""
    try:
        return _checked(json.loads(text, strict=False))
    except (ValueError, RecursionError) as error:
        raise ValueError(_why(error)) from None


def _tagged(text: str, read: Callable[[str], ToolCall]) -> Said:
    """A text with calls in <tool_call> tags; the last tag may be left open.

    What cannot be read stays in the text.
    """
    reasoning, said = thoughts(text)
    calls: list[ToolCall] = []
    errors: list[str] = []

    def taken(match: re.Match[str]) -> str:
        try:
            calls.append(read(match[1]))
        except ValueError as error:
            errors.append(str(error))
            return match[0]
        return ""

    content = CALL.sub(taken, said).strip()
    return Said(content=content, calls=calls, errors=errors, reasoning=reasoning)


def _checked(value: Any, number: int | None = None, *, free_id: bool = False) -> ToolCall:
    """A call with an id that its templates take, else one made of `number`; any with `free_id`."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError('a call is an object with "name" and "arguments"')
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = json.loads(arguments, strict=False)
    if not isinstance(arguments, dict):
        raise ValueError('the "arguments" of a call are an object')
    own = value.get("id")
    if not (isinstance(own, str) and (free_id or CALL_ID.fullmatch(own))):
        own = None if number is None else f"call{number:05d}"
    return ToolCall(**writable({"name": value["name"], "arguments": arguments, "id": own}))


def _mistral_calls(piece: str, before: int) -> list[ToolCall]:
    named = NAMED_CALL.fullmatch(piece.rstrip())
    if named is None:
        try:
            values = json.loads(piece, strict=False)
        except (ValueError, RecursionError) as error:
            raise ValueError(_why(error)) from None
        values = values if isinstance(values, list) else [values]
    else:
        name, own, arguments = named.groups()
        values = [{"name": name, "arguments": arguments} | ({"id": own} if own else {})]
    return [_checked(value, before + i) for i, value in enumerate(values)]


def _typed(value: str, schema: Mapping[str, Any]) -> Any:
    if schema.get("type") == "string":
        return value
    try:
        return writable(json.loads(value))
    except (ValueError, RecursionError):
        return value


def _why(error: Exception) -> str:
    return (
        f"the call is not valid JSON: {error}"
        if isinstance(error, json.JSONDecodeError)
        else str(error)
    )


def _template_parser(tokenizer: PreTrainedTokenizerBase) -> CallParser:
    """Reads by the tokenizer's own response template (transformers' parse_response)."""
    if getattr(tokenizer, "response_template", None) is None:
        raise UserError(
            "turns.call_format=template needs a tokenizer with a response_template; this one has "
            f"none: choose one of {', '.join(FORMATS)}"
        )
    prefix: Any = ""
    with suppress(*REFUSALS):
        prefix = tokenizer.apply_chat_template(
            [{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True
        )
    special = special_texts(tokenizer)

    def parse(text: str, schemas: Schemas) -> Said:
        try:
            read: Any = tokenizer.parse_response(  # type: ignore[attr-defined, unused-ignore]
                text, prefix=prefix, tools=[dict(schema) for schema in schemas] or None
            )
            calls = [
                _checked(call["function"] | {"id": call.get("id")}, free_id=True)
                for call in read.get("tool_calls") or ()
            ]
            reasoning = read.get("reasoning_content", read.get("thinking"))
            content = without_end(read.get("content") or "", special)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"the turn cannot be read: {' '.join(str(error).split())[:200]}"
            return Said(content=without_end(text, special), errors=[reason])
        return Said(content=content, calls=calls, reasoning=reasoning)

    return parse
