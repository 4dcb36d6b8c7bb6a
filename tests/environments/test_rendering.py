from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from rlkit.environments.rendering import keeps_prefix, observation_ids, shows_tools, template_notes
from rlkit.errors import UserError
from rlkit.models.embedded import EOS, make_tokenizer
from tests.environments import templates
from tests.environments.templates import tokenizer

ANSWER = {"role": "tool", "name": "add", "content": "5", "tool_call_id": "call00007"}
OTHER = {"role": "tool", "name": "mul", "content": "6", "tool_call_id": "call00008"}
AGAIN = {"role": "user", "content": "again"}

CHATML = "\n<|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"


def behind(
    template: str, messages: Sequence[dict[str, str]], last: str, *, before: str = "sure"
) -> str:
    t = tokenizer(template)
    sampled = t(before + last, add_special_tokens=False)["input_ids"]
    return str(t.decode(observation_ids(t, sampled, messages), skip_special_tokens=False))


@pytest.mark.parametrize(
    ("template", "messages", "last", "expected"),
    [
        (
            "HERMES",
            [ANSWER, OTHER],
            "<|im_end|>",
            "\n<|im_start|>user\n<tool_response>\n5\n</tool_response>"
            "\n<tool_response>\n6\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
        ),
        ("HERMES", [AGAIN], "<|im_end|>", CHATML),
        # A turn that a stop text has cut is ended as the template ends it.
        (
            "HERMES",
            [AGAIN],
            "</tool_call>",
            "<|im_end|>" + CHATML,
        ),
        (
            "QWEN3",
            [ANSWER],
            "<|im_end|>",
            "\n<|im_start|>user\n<tool_response>\n5\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        ("QWEN3", [AGAIN], "<|im_end|>", CHATML),
        ("SMOLLM2", [AGAIN], "<|im_end|>", CHATML),
        ("SMOLLM2", [ANSWER], "<|im_end|>", "\n<|im_start|>tool\n5<|im_end|>" + CHATML[-23:]),
        (
            "LLAMA3",
            [ANSWER, OTHER],
            "<|eot_id|>",
            '<|start_header_id|>ipython<|end_header_id|>\n\n"5"<|eot_id|>'
            '<|start_header_id|>ipython<|end_header_id|>\n\n"6"<|eot_id|>'
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "MISTRAL",
            [ANSWER],
            "</s>",
            '[TOOL_RESULTS] {"content": "5", "call_id": "call00007"}[/TOOL_RESULTS]',
        ),
        ("MISTRAL", [AGAIN], "</s>", "[INST] again[/INST]"),
        # The header of the next turn ends the one before: it is not written twice.
        ("NO_END", [ANSWER], "<|observation|>", "\n5<|assistant|>"),
        ("NO_END", [ANSWER], "x", "<|observation|>\n5<|assistant|>"),
        ("NO_END", [AGAIN], "<|user|>", "\nagain<|assistant|>"),
        (
            "LAST_ENDS_OTHERWISE",
            [AGAIN],
            "<|return|>",
            "<|start|>user<|message|>again<|end|><|start|>assistant",
        ),
        ("PLAIN", [AGAIN], "</s>", "\nuser: again\nassistant: "),
        ("PLAIN", [ANSWER], "</s>", "\ntool: 5\nassistant: "),
    ],
)  # fmt: skip
def test_each_template_writes_its_own_observation(
    template: str, messages: list[dict[str, str]], last: str, expected: str
) -> None:
    assert behind(getattr(templates, template), messages, last) == expected


def test_the_sampled_turn_is_never_rendered() -> None:
    """Whatever the policy wrote, thoughts and broken calls too, the observation is the same."""
    plain = behind(templates.QWEN3, [ANSWER], "<|im_end|>")
    for said in ("<think>\nhm\n</think>\n\nyes", "<tool_call>{</tool_call>", ""):
        assert behind(templates.QWEN3, [ANSWER], "<|im_end|>", before=said) == plain


def test_the_embedded_models_tokenizer_writes_an_answer_behind_its_end() -> None:
    """It has one token per character of a sum, none for other texts, and no template of its own."""
    t = make_tokenizer()
    t.chat_template = templates.COMPACT
    turn = t("12+34=", add_special_tokens=False)["input_ids"]
    answer = [{"role": "tool", "name": "calculate", "content": "46"}]
    expected = t("46", add_special_tokens=False)["input_ids"]
    assert observation_ids(t, [*turn, EOS], answer) == expected
    assert observation_ids(t, turn, answer) == [EOS, *expected]


def test_a_message_that_holds_the_dummys_text_is_told_apart() -> None:
    text = behind(templates.HERMES, [{"role": "user", "content": "qz0zq qz1zq"}], "<|im_end|>")
    assert text == "\n<|im_start|>user\nqz0zq qz1zq<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("template", "messages", "said"),
    [
        (None, [AGAIN], "has none"),
        ("NO_TOOLS", [ANSWER], "it leaves them out"),
        ("ALTERNATES", [ANSWER], "roles alternate"),
        ("ALTERNATES", [AGAIN, AGAIN], "roles alternate"),
    ],
)
def test_what_cannot_be_written_is_refused_with_one_line(
    template: str | None, messages: list[dict[str, str]], said: str
) -> None:
    t = tokenizer(template and getattr(templates, template))
    with pytest.raises(UserError, match=said) as caught:
        observation_ids(t, [], messages)
    assert "\n" not in str(caught.value)


def test_the_notes_say_what_a_template_does_to_earlier_turns_and_tools() -> None:
    assert template_notes(tokenizer(templates.HERMES), tools=False) == []
    (shown,) = template_notes(tokenizer(templates.HERMES), tools=True)
    assert "shows no tools" in shown
    (dropped,) = template_notes(tokenizer(templates.QWEN3), tools=True)
    assert "rewrites earlier turns" in dropped
    assert shows_tools(tokenizer(templates.QWEN3)) and not keeps_prefix(tokenizer(templates.QWEN3))
    with pytest.raises(UserError, match="leaves them out"):
        template_notes(tokenizer(templates.NO_TOOLS), tools=True)


TRL = importlib.util.find_spec("trl")
FILES = (
    sorted((Path(TRL.origin).parent / "chat_templates").glob("*_training.jinja"))
    if TRL is not None and TRL.origin is not None
    else []
)


def spelled(t: PreTrainedTokenizerBase, messages: list[dict[str, Any]], *, follows: bool) -> str:
    return str(t.apply_chat_template(messages, tokenize=False, add_generation_prompt=follows))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_prefix_and_observation_are_the_whole_chat_under_each_of_trls_templates(path: Path) -> None:
    """Where a template keeps its prefix, cutting and joining must give what it writes itself."""
    t = tokenizer(path.read_text())
    try:
        ids = observation_ids(t, [2], [AGAIN])
    except UserError:
        pytest.skip("it takes no text")  # templates of vision models
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "sure"}]
    whole = spelled(t, [*chat, AGAIN], follows=True)
    observed = str(t.decode(ids, skip_special_tokens=False))
    assert "again" in observed and whole.endswith(observed)
    assert whole.removesuffix(observed).rpartition("sure")[2].count("\n") == 0
