from __future__ import annotations

import json

import pytest

from rlkit.environments.answers import message
from rlkit.environments.formats import FORMATS, call_parser, format_of
from rlkit.environments.rendering import observation_ids
from rlkit.errors import UserError
from rlkit.interfaces import ToolCall
from tests.environments import templates
from tests.environments.templates import tokenizer

SCHEMAS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
            },
        },
    }
]
ADD = '{"name": "add", "arguments": {"a": 1, "b": "2"}}'
CALLED = ToolCall(name="add", arguments={"a": 1, "b": "2"})
AS_TEXT = json.dumps(json.dumps(dict(CALLED.arguments)))
BROKEN = "<tool_call>{</tool_call>"
F = ToolCall(name="f", arguments={})


@pytest.mark.parametrize(
    ("form", "text", "content", "calls", "errors"),
    [
        ("hermes", f"so\n<tool_call>\n{ADD}\n</tool_call>", "so", [CALLED], 0),
        ("hermes", f"<tool_call>{ADD}</tool_call><tool_call>{ADD}", "", [CALLED, CALLED], 0),
        ("hermes", "just <b>words</b>", "just <b>words</b>", [], 0),
        ("hermes", f"{BROKEN}<tool_call>{ADD}</tool_call>", BROKEN, [CALLED], 1),
        ("hermes", '<tool_call>["add"]</tool_call>', None, [], 1),
        ("hermes", '<tool_call>{"name": "add", "arguments": 3}</tool_call>', None, [], 1),
        ("hermes", '<tool_call>{"name": "add", "arguments": "[3]"}</tool_call>', None, [], 1),
        ("hermes", f"<tool_call>{'[' * 100_000}</tool_call>", None, [], 1),
        (
            "hermes",
            f'<tool_call>{{"name": "add", "arguments": {AS_TEXT}}}',
            "",
            [CALLED],
            0,
        ),
        (
            "hermes",
            '<tool_call>{"name": "run", "arguments": {"code": "a\nb"}}</tool_call>',
            "",
            [ToolCall(name="run", arguments={"code": "a\nb"})],
            0,
        ),
        (
            "qwen_xml",
            "ok\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n"
            "<parameter=b>\n2\n</parameter>\n</function>\n</tool_call>",
            "ok",
            [CALLED],
            0,
        ),
        ("qwen_xml", "<tool_call>add(1)</tool_call>", None, [], 1),
        ("qwen_xml", "<tool_call><function=f>\n</function></tool_call>", "", [F], 0),
        ("llama3", '{"name": "add", "parameters": {"a": 1, "b": "2"}}', "", [CALLED], 0),
        ("llama3", f"<|python_tag|>{ADD}; {ADD}", "", [CALLED, CALLED], 0),
        ("llama3", '{"name": "add", "parameters": {', None, [], 1),
        ("llama3", "<|python_tag|>print(1)", "print(1)", [], 1),
        ("llama3", '{"answer": 3}', '{"answer": 3}', [], 0),
        (
            "mistral",
            'hm[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": "2"}, "id": "abcdefghi"}]',
            "hm",
            [ToolCall(name="add", arguments=CALLED.arguments, id="abcdefghi")],
            0,
        ),
        (
            "mistral",
            '[TOOL_CALLS]add[ARGS]{"a": 1, "b": "2"}[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{}',
            "",
            [
                ToolCall(name="add", arguments=CALLED.arguments, id="call00000"),
                ToolCall(name="add", arguments={}, id="abcdefghi"),
            ],
            0,
        ),
        ("mistral", "[TOOL_CALLS] [{]", None, [], 1),
        ("compact", "12+34=?12+34", "12+34=", [ToolCall(name="add", arguments={"a": "12+34"})], 0),
        ("compact", "12+34=46", "12+34=46", [], 0),
        ("none", f"<tool_call>{ADD}</tool_call>", f"<tool_call>{ADD}</tool_call>", [], 0),
    ],
)  # fmt: skip
def test_each_format_is_read(
    form: str, text: str, content: str | None, calls: list[ToolCall], errors: int
) -> None:
    said = FORMATS[form](text, SCHEMAS)
    whole = text if content is None else content  # what cannot be read is left in the text
    assert (said.content, list(said.calls), len(said.errors)) == (whole, calls, errors)
    assert all("\n" not in error for error in said.errors)


def test_calls_among_thoughts_are_none() -> None:
    said = FORMATS["hermes"](f"<tool_call>{ADD}</tool_call> hm\n</think>\nyes", SCHEMAS)
    assert (said.content, said.calls) == ("yes", [])
    assert said.reasoning == f"<tool_call>{ADD}</tool_call> hm"
    endless = FORMATS["hermes"](f"<think> <tool_call>{ADD}</tool_call>", SCHEMAS)
    assert (endless.content, endless.calls) == ("", [])


def test_the_special_tokens_behind_a_turn_are_cut_off_and_those_of_a_call_are_read() -> None:
    t = tokenizer(templates.HERMES)
    assert call_parser(t)("yes<|im_end|></s>", SCHEMAS).message == {
        "role": "assistant",
        "content": "yes",
    }
    said = call_parser(tokenizer(templates.MISTRAL))(f"[TOOL_CALLS] [{ADD}]</s>", SCHEMAS)
    assert said.message["tool_calls"] == [
        {
            "type": "function",
            "function": {"name": "add", "arguments": {"a": 1, "b": "2"}},
            "id": "call00000",
        }
    ]


@pytest.mark.parametrize("own", ["a", "abc-defgh", "abcdefghij", "\ud800bcdefghi", 7])
def test_an_id_that_templates_refuse_is_replaced(own: object) -> None:
    piece = json.dumps([{"name": "add", "arguments": {}, "id": own}])
    (call,) = FORMATS["mistral"](f"[TOOL_CALLS] {piece}", SCHEMAS).calls
    assert call.id == "call00000"
    (tagged,) = FORMATS["hermes"](f"<tool_call>{piece[1:-1]}</tool_call>", SCHEMAS).calls
    assert tagged.id is None
    observation_ids(tokenizer(templates.MISTRAL), [], [message(call.name, "5", call.id)])


def test_what_no_file_can_hold_is_replaced_in_names_and_arguments() -> None:
    text = '<tool_call>{"name": "\\ud800", "arguments": {"\\ud800": ["\\ud800", 1]}}</tool_call>'
    (call,) = FORMATS["hermes"](text, SCHEMAS).calls
    assert call == ToolCall(name="?", arguments={"?": ["?", 1]})
    xml = '<tool_call><function=add><parameter=a>["\\udfff"]</parameter></function></tool_call>'
    assert FORMATS["qwen_xml"](xml, SCHEMAS).calls[0].arguments == {"a": ["?"]}


def test_compact_calls_need_a_tool() -> None:
    assert FORMATS["compact"]("a?1", []).message == {"role": "assistant", "content": "a?1"}


@pytest.mark.parametrize(
    ("template", "form"),
    [("HERMES", "hermes"), ("QWEN3", "hermes"), ("LLAMA3", "llama3"), ("MISTRAL", "mistral")],
)
def test_the_format_is_what_the_chat_template_shows(template: str, form: str) -> None:
    assert format_of(tokenizer(getattr(templates, template))) == form


def test_a_tokenizers_own_response_template_comes_first() -> None:
    t = tokenizer(templates.HERMES)
    t.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "tool_calls": {
                "open": "[[",
                "close": "]]",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            },
            "content": {"close": "<|im_end|>", "content": "text"},
        },
    }
    assert format_of(t) == "template"
    parse = call_parser(t)
    said = parse(f"so[[{ADD}]]<|im_end|>", SCHEMAS)
    assert (said.content, list(said.calls)) == ("so", [CALLED])
    assert parse("yes<|im_end|>", SCHEMAS).content == "yes"
    broken = parse("[[{]]<|im_end|>", SCHEMAS)
    assert not broken.calls and "cannot be read" in broken.errors[0]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("auto", "does not show how this model calls tools"),
        ("hermse", "Did you mean 'hermes'"),
        ("template", "needs a tokenizer with a response_template"),
    ],
)
def test_a_format_that_cannot_be_had_is_refused_with_one_line(form: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        call_parser(tokenizer(templates.PLAIN), form)
    assert "\n" not in str(caught.value)
