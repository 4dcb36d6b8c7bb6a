"""Prompts: encoding, limits, and an order that depends on the seed and the position alone."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.stream import PromptStream
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


def test_each_epoch_is_another_permutation_and_the_position_is_all_there_is() -> None:
    stream = PromptStream(prompts(), seed=5, num_generations=2, max_completion_length=8)
    taken = [p.prompt_id for p in stream.take(21)]
    epochs = [taken[i : i + 7] for i in (0, 7, 14)]
    assert all(len(set(e)) == 7 for e in epochs)
    assert len({tuple(e) for e in epochs}) == 3
    resumed = PromptStream(prompts(), seed=5, num_generations=2, max_completion_length=8)
    resumed.load_state_dict({"position": 10})
    assert [p.prompt_id for p in resumed.take(11)] == taken[10:]
    assert resumed.state_dict()["position"] == 21
    other = PromptStream(prompts(), seed=6, num_generations=2, max_completion_length=8)
    assert [p.prompt_id for p in other.take(21)] != taken


def test_a_prompt_is_found_by_its_id_with_its_columns() -> None:
    stream = PromptStream(prompts(), seed=0, num_generations=1, max_completion_length=8)
    (prompt,) = stream.take(1)
    again = stream.get(prompt.prompt_id)
    assert again.text_or_messages == prompt.text_or_messages and again.columns == prompt.columns
    assert set(prompt.columns) == {"answer"}
    with pytest.raises(UserError, match=r"train-7, which is not in the task's data any more"):
        stream.get("train-7")


def test_a_prompt_keeps_its_id_wherever_it_stands_and_the_data_is_told_apart() -> None:
    """The places of the order stay those of the seed; ids go with the rows."""

    def stream(rows: list[dict[str, Any]]) -> PromptStream:
        return PromptStream(prompts(rows), seed=5, num_generations=2, max_completion_length=8)

    kept, turned = stream(ROWS), stream(ROWS[::-1])
    edited = stream([{**ROWS[0], "answer": "1"}, *ROWS[1:]])
    for prompt in kept.prompts:
        assert turned.get(prompt.prompt_id).text_or_messages == prompt.text_or_messages
    with pytest.raises(UserError, match="not in the task's data"):
        edited.get(kept.prompts.ids[0])
    assert edited.prompts.ids[1:] == kept.prompts.ids[1:]
    again = stream([dict(reversed(row.items())) for row in ROWS])
    assert kept.data == again.data == kept.state_dict()["data"], "columns have no order"
    assert len({str(each.data) for each in (kept, turned, edited, stream(ROWS[:6]))}) == 4


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
