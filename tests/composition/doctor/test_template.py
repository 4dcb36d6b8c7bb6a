"""Templates and tokens at the beginning of a prompt."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.template import check
from rlkit.models.policy import Policy
from tests.composition.doctor.patients import patient_of, text
from tests.tiny import CHATML, make_chat_tokenizer, make_policy, make_tokenizer


def chat_policy(template: str = CHATML) -> Policy:
    tokenizer = make_chat_tokenizer(template)
    policy = make_policy(vocab_size=len(tokenizer))
    return Policy(policy.model, tokenizer, 1.0)


def with_bos() -> Policy:
    """A tokenizer that puts a 0 in front of every text as its beginning of sequence."""
    policy = make_policy()
    tokenizer: Any = make_tokenizer()
    tokenizer.bos_token = "0"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="0 $A", special_tokens=[("0", tokenizer.convert_tokens_to_ids("0"))]
    )
    return Policy(policy.model, tokenizer, 1.0)


def test_without_a_template(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert "no chat template" in found.finding and '"1+1+1+1+1="' in found.finding


def test_with_a_template() -> None:
    found = check(patient_of(policy=chat_policy()))
    assert found.verdict == "ok"
    assert "It ends with the beginning of the assistant's turn" in found.finding
    assert "<|start|>user:0+0=<|end|>,<|start|>assistant:" in found.finding


def test_a_template_that_does_not_begin_the_answer() -> None:
    deaf = CHATML.replace("{% if add_generation_prompt %}", "{% if false %}")
    found = check(patient_of(policy=chat_policy(deaf)))
    assert found.verdict == "problem"
    assert "before an answer the template writes '<|end|>,<|start|>assistant:'" in text(found)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHATML.replace("assistant:{%", "assistant:<think>{%"), "The template opens <think>"),
        (
            CHATML.replace(
                "{{ m['content'] }}",
                "{% if m['role'] == 'assistant' %}<think></think>{% endif %}{{ m['content'] }}",
            ),
            "the template rewrites what was thought",
        ),
    ],
)
def test_thinking_is_told(template: str, said: str) -> None:
    found = check(patient_of(policy=chat_policy(template)))
    assert found.verdict == "ok"
    assert said in found.finding


def test_a_doubled_beginning_of_sequence() -> None:
    fine = check(patient_of(policy=with_bos(), rows=[{"prompt": "1+1=", "answer": "2"}]))
    assert fine.verdict == "ok"
    found = check(patient_of(policy=with_bos(), rows=[{"prompt": "01+1=", "answer": "2"}]))
    assert found.verdict == "problem"
    assert "begin with 2 beginning-of-sequence tokens (0)" in text(found)


def test_a_missing_beginning_of_sequence() -> None:
    policy = chat_policy()
    tokenizer: Any = policy.tokenizer
    tokenizer.bos_token = "0"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="0 $A", special_tokens=[("0", tokenizer.convert_tokens_to_ids("0"))]
    )
    found = check(patient_of(policy=policy))
    assert found.verdict == "warning"
    assert "begin without the token 0" in text(found)
