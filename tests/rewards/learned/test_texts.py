"""What a reward model reads: texts as TRL trains, chats in its own template, pairs."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from rlkit.errors import UserError
from rlkit.rewards.learned.texts import Reader
from tests.reward_models import make_reward_model
from tests.tiny import make_chat_tokenizer, make_tokenizer

CHAT = [{"role": "user", "content": "1+1="}]
ANSWER = [{"role": "assistant", "content": "2"}]


def reader(form: Any = "auto", *, chat: bool = False, eos: bool = True) -> Reader:
    return Reader(make_chat_tokenizer() if chat else make_tokenizer(), "rm", form, eos=eos)


def test_texts_stand_one_after_the_other_with_an_end_if_they_ended() -> None:
    tokens = make_tokenizer()("1+1=2")["input_ids"]
    assert reader().ids("1+1=", "2", finished=True) == [*tokens, 1]
    assert reader().ids("1+1=", "2", finished=False) == tokens
    assert reader(eos=False).ids("1+1=", "2", finished=True) == tokens
    assert reader().ids("1+1=", "2<eos>", finished=True) == [*tokens, 1]


def test_messages_are_written_in_the_models_own_template() -> None:
    ours = reader(chat=True)
    text = ours.tokenizer.apply_chat_template([*CHAT, *ANSWER], tokenize=False)
    expected = ours.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ours.ids(CHAT, ANSWER, finished=True) == expected
    assert reader("chat", chat=True).ids("1+1=", "2", finished=True) == expected


def test_a_pair_is_encoded_as_the_tokenizer_encodes_pairs() -> None:
    tokenizer = make_tokenizer()
    expected = tokenizer("1+1=", "2")["input_ids"]
    assert reader("pair").ids("1+1=", "2", finished=True) == expected
    assert reader("pair").ids(CHAT, ANSWER, finished=True) == expected


def test_messages_without_a_template_and_messages_it_refuses_are_one_line() -> None:
    with pytest.raises(UserError, match="no chat template, and it is to read messages"):
        reader().ids(CHAT, ANSWER, finished=True)
    refusing = reader(chat=True)
    refusing.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(UserError, match="refuses the messages: no system role"):
        refusing.ids(CHAT, ANSWER, finished=True)


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
def test_the_tokens_are_those_that_trl_trains_on(tmp_path, chat: bool) -> None:
    ours = reader(chat=chat)
    prompt, answers = ("1+1=", ["2", "3"]) if not chat else (CHAT, [ANSWER, ANSWER])
    row = {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}
    trainer = RewardTrainer(
        model=make_reward_model(),
        args=RewardConfig(output_dir=str(tmp_path), report_to="none", bf16=False, use_cpu=True),
        train_dataset=datasets.Dataset.from_list([row]),
        processing_class=ours.tokenizer,
    )
    data: Any = trainer.train_dataset
    (theirs,) = list(data)
    for name, answer in zip(("chosen_ids", "rejected_ids"), answers, strict=True):
        assert theirs[name] == ours.ids(prompt, answer, finished=True)
