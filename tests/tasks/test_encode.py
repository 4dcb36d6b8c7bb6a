"""Prompts and demonstrations as the text or the chat template writes them, token for token."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from rlkit.errors import UserError
from rlkit.interfaces import ChatTemplate
from rlkit.tasks.encode import Encoder, special_texts
from rlkit.tasks.prompts import Prompts
from tests.tiny import CHATML, make_chat_tokenizer, make_tokenizer

USER = [{"role": "user", "content": "1+1="}]
RENDERED = "<|start|>user:1+1=<|end|>,<|start|>assistant:"


def text(encoder: Encoder, ids: list[int]) -> str:
    return str(encoder.tokenizer.decode(ids, skip_special_tokens=False))


@pytest.mark.parametrize(
    ("mode", "prompt", "seen"),
    [
        ("auto", "1+1=", RENDERED),
        ("auto", RENDERED, RENDERED),
        ("auto", USER, RENDERED),
        ("auto", [*USER, {"role": "assistant", "content": "2"}], RENDERED + "2"),  # as TRL does
        ("never", "1+1=", "1+1="),
        ("never", RENDERED, RENDERED),
        ("never", USER, RENDERED),
        ("always", RENDERED, RENDERED.replace("1+1=", RENDERED)),
    ],
)
def test_what_the_model_reads(mode: ChatTemplate, prompt: Any, seen: str) -> None:
    encoder = Encoder(make_chat_tokenizer(), mode)
    asked = encoder.asked(prompt)
    assert text(encoder, encoder.encode(asked)) == seen
    assert isinstance(asked, str) == (isinstance(prompt, str) and seen == prompt)


def test_a_template_without_special_tokens_is_known_by_what_it_writes_around() -> None:
    around = "{% for m in messages %}user: :\n{{ m['content'] }}\n{% endfor %}assistant:"
    encoder = Encoder(make_chat_tokenizer(around))
    assert encoder.is_rendered("user: :\n1+1=\nassistant:")
    assert not encoder.is_rendered("1+1=") and not encoder.is_rendered("user: :\n1+1=")
    assert not Encoder(
        make_chat_tokenizer("{% for m in messages %}#{{m['content']}}={% endfor %}")
    ).is_rendered("#1+1=")


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (CHATML, "1<|end|>"),
        (CHATML.replace("<|end|>,", "<|end|>\n"), "1<|end|>"),
        (CHATML.replace("<|end|>,", "\n"), "1<eos>"),
        (CHATML.replace("assistant:{% endif %}", "assistant:+{% endif %}"), "1<|end|>"),
        (None, "1<eos>"),
    ],
    ids=["token", "token and blank", "no token", "another start", "no template"],
)
def test_a_demonstration_ends_as_a_turn_does(template: str | None, written: str) -> None:
    """CHATML also writes a comma behind the turn, which the policy never does."""
    tokenizer = make_chat_tokenizer(template or CHATML)
    if template is None:
        tokenizer.chat_template = None
    encoder = Encoder(tokenizer)
    assert text(encoder, encoder.response("1")) == written
    assert text(encoder, encoder.response("")) == written.removeprefix("1"), "said nothing"


def test_texts_that_stay_texts_end_with_the_end_of_sequence() -> None:
    encoder = Encoder(make_chat_tokenizer(), "never")
    assert text(encoder, encoder.response("1")) == "1<eos>"


def test_what_a_tokenizer_adds_behind_a_text_is_left_out_and_said() -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<pad> $A <eos>", special_tokens=[("<pad>", 0), ("<eos>", 1)]
    )
    encoder = Encoder(tokenizer)
    assert text(encoder, encoder.encode("1+1=")) == "<pad>1+1="
    (line,) = Prompts("train", [{"prompt": "1+1="}], tokenizer).description()
    assert line == 'The tokenizer\'s "<eos>" behind a text is left out of prompts.'
    assert Encoder(make_tokenizer()).added_behind == []


def test_what_cannot_be_encoded_is_named() -> None:
    with pytest.raises(UserError, match="character 1 is half of a surrogate pair"):
        Encoder(make_tokenizer()).encode("1\ud800")
    refusing = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match=r"refuses its messages \(user\): roles must alternate"):
        Encoder(make_chat_tokenizer(refusing)).encode(USER)
    rows = [{"prompt": "1"}, {"prompt": "1\ud800"}]
    with pytest.raises(UserError, match="problem 1 of the train set: the text cannot be encoded"):
        Prompts("train", rows, make_tokenizer()).within(9, "error")


def test_the_run_says_what_became_of_the_prompts() -> None:
    rows: list[dict[str, Any]] = [{"prompt": p} for p in ("1+1=", RENDERED, USER, USER)]
    (line,) = Prompts("train", rows, make_chat_tokenizer()).description()
    assert line == (
        "Prompts: 1 wrapped in the chat template, 1 used as written (task.chat_template), "
        "2 given as chats. The first one: "
        f'"{RENDERED}"'
    )
    assert Prompts("train", rows[:1], make_tokenizer()).description() == []


def test_special_texts_are_those_that_can_be_seen() -> None:
    tokenizer = make_chat_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", " "]})
    assert {*special_texts(tokenizer)} == {"<pad>", "<eos>", "<|start|>", "<|end|>"}
