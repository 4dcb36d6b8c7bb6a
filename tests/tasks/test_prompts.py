"""Prompts: encoding and limits."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.tasks.prompts import Prompts
from tests.tiny import make_tokenizer

ROWS = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(7)]
TEMPLATE = (
    "{% for m in messages %}#{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}={% endif %}"
)


def prompts(rows: list[dict[str, Any]] | None = None, template: str | None = None) -> Prompts:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return Prompts("train", rows or ROWS, tokenizer)


def test_text_becomes_a_user_message_where_the_tokenizer_has_a_template() -> None:
    plain, chat = prompts()[3], prompts(template=TEMPLATE)[3]
    assert plain.text_or_messages == "3+3="
    assert chat.text_or_messages == [{"role": "user", "content": "3+3="}]
    decode = make_tokenizer().decode
    assert decode(plain.ids) == "3+3=" and decode(chat.ids) == "#3+3=="


def test_messages_need_a_template() -> None:
    rows = [{"prompt": [{"role": "user", "content": "1+1="}]}]
    assert make_tokenizer().decode(prompts(rows, TEMPLATE)[0].ids) == "#1+1=="
    with pytest.raises(UserError, match="no chat template"):
        prompts(rows)[0]


def test_an_overlong_prompt_is_an_error_or_dropped() -> None:
    rows = [*ROWS, {"prompt": "1+2+3+4=", "answer": "10"}]
    with pytest.raises(UserError, match=r"problem 7 .* 8 prompt tokens.*max_prompt_length=6"):
        prompts(rows).within(6, "error")
    kept = prompts(rows).within(6, "drop")
    assert len(kept) == 7 and all(len(p.ids) <= 6 for p in kept)
    assert len(prompts(rows).within(8, "error")) == 8
    with pytest.raises(UserError, match="every problem"):
        prompts(rows).within(2, "drop")
