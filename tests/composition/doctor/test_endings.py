"""What ends a response."""

from __future__ import annotations

from dataclasses import replace

from transformers import GenerationConfig

from rlkit.composition.doctor.endings import check
from rlkit.composition.doctor.patient import Patient
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall
from tests.composition.doctor.patients import Changing, patient_of, text
from tests.composition.doctor.test_template import chat_policy
from tests.tiny import make_policy, make_tokenizer


def without_end(
    engine: Changing, call: GenerationCall, groups: list[list[Generation]]
) -> list[list[Generation]]:
    return [
        [
            replace(
                g,
                response_ids=g.response_ids[:-1],
                logp=g.logp[:-1],
                policy_version=g.policy_version[:-1],
            )
            if g.finish_reason == "stop" and len(g.logp) > 1
            else g
            for g in group
        ]
        for group in groups
    ]


def test_a_response_ends_with_its_token(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert "Responses end with '<eos>'. Of 64 responses 64 ended by themselves" in found.finding


def test_a_template_whose_turns_do_not_end_a_response() -> None:
    found = check(patient_of(policy=chat_policy()))
    assert found.verdict == "problem"
    assert "ends a turn with '<|end|>', which does not end a response" in text(found)
    assert check(patient_of("rollout.stop=['<|end|>']", policy=chat_policy())).verdict != "problem"


def test_padding_may_have_the_id_of_the_end() -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = "<eos>"
    found = check(patient_of(policy=Policy(make_policy().model, tokenizer, 1.0)))
    assert "also though padding has the same id" in found.finding
    assert found.verdict != "problem"


def test_an_engine_that_loses_the_end_token() -> None:
    found = check(patient_of(change=without_end))
    assert found.verdict == "problem"
    assert "do not hold the token that ended them" in text(found)


def test_ends_that_disagree_or_do_not_exist() -> None:
    policy = make_policy()
    policy.model.config.eos_token_id = 5
    found = check(patient_of(policy=policy))
    assert found.verdict == "warning"
    assert "config ends sequences with the token 5" in text(found)
    policy = make_policy()
    policy.model.generation_config = GenerationConfig(eos_token_id=[1, 99])
    found = check(patient_of(policy=policy))
    assert found.verdict == "problem"
    assert "The end token 99 does not exist" in text(found)


def test_responses_that_begin_with_a_special_token() -> None:
    def empty(
        engine: Changing, call: GenerationCall, groups: list[list[Generation]]
    ) -> list[list[Generation]]:
        return [
            [replace(g, response_ids=g.response_ids * 0 + 1) for g in group] for group in groups
        ]

    found = check(patient_of(change=empty))
    assert "begin with a special token, mostly '<eos>'" in text(found)
