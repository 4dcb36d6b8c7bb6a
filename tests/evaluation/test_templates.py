"""Prompt templates, character for character."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.evaluation.templates import TEMPLATES, question, template_for
from rlkit.tasks.encode import Encoder
from tests.tiny import CHATML, make_chat_tokenizer, make_tokenizer

R1 = (
    "{% for m in messages %}<|start|>{{ m['role'] }}{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|end|>{% endif %}"
)


def encoder(template: str | None = CHATML, *tokens: str) -> Encoder:
    tokenizer = make_chat_tokenizer(template) if template else make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", *tokens]})
    return Encoder(tokenizer, "never")


def asked(name: str, given: Encoder) -> Any:
    return question(name, "What is {1+1}?", given)


def test_qwens_template_is_that_of_its_evaluation() -> None:
    assert asked("qwen2.5-math", encoder(None, "<|im_start|>")) == (
        "<|im_start|>system\n"
        "Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\n"
        "What is {1+1}?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("end", ["", "<think>\n"])
def test_deepseeks_template_has_no_system_message_and_begins_the_thinking(end: str) -> None:
    given = encoder(R1.replace("<|end|>", "<|end|>" + end))
    assert asked("deepseek-r1", given) == (
        "<|start|>userWhat is {1+1}?\n"
        "Please reason step by step, and put your final answer within \\boxed{}.<|end|><think>\n"
    )


def test_the_other_templates() -> None:
    instruction = "Please reason step by step, and put your final answer within \\boxed{}."
    assert asked("chat", encoder()) == [
        {"role": "user", "content": f"What is {{1+1}}?\n{instruction}"}
    ]
    assert asked("plain", encoder(None)) == f"What is {{1+1}}?\n{instruction}\n"
    assert asked("none", encoder(None)) == "What is {1+1}?"
    assert asked("remix", encoder()) == [
        {
            "role": "user",
            "content": "What is {1+1}? Let's think step by step and output the final answer within "
            "\\boxed{}.",
        }
    ]


def test_messages_stay_as_they_are() -> None:
    messages = [{"role": "user", "content": "1+1="}]
    assert all(question(name, messages, encoder()) is messages for name in TEMPLATES)


@pytest.mark.parametrize("name", ["chat", "remix", "deepseek-r1", "qwen2.5-math"])
def test_a_template_that_the_model_cannot_read_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match="plain"):
        asked(name, encoder(None))


def test_the_default_is_what_the_model_was_made_for() -> None:
    assert template_for(None, make_chat_tokenizer()) == "chat"
    assert template_for(None, make_tokenizer()) == "plain"
    assert template_for("none", make_chat_tokenizer()) == "none"
    with pytest.raises(UserError, match="Did you mean 'deepseek-r1'"):
        template_for("deepseek_r1", make_tokenizer())
