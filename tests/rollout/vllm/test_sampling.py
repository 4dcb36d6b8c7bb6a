"""What both vLLM engines ask for and how they read the answers. Without vLLM."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import Request
from rlkit.config.sampling import Sampling
from rlkit.errors import UserError
from rlkit.registry import build, names
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.sampling import KEPT
from rlkit.rollout.vllm.sampling import (
    Answer,
    Asker,
    VLLMSamplingConfig,
    by_request,
    generation,
    kept_logmass,
)
from tests.rollout.models import make_policy, requests

STREAM = ("t", 1, 0)
CALL = GenerationCall([], STREAM)


def answer(**fields: object) -> Answer:
    one = {"ids": [3, 1], "logp": [-0.5, -0.25], "top": [[], []], "finish_reason": "stop"}
    return Answer(**{**one, "version": [4, 5], **fields})  # type: ignore[arg-type]


def test_each_response_has_a_seed_of_its_own_that_depends_on_nothing_else() -> None:
    policy = make_policy()
    asker, config = Asker.of(policy, seed=3), VLLMSamplingConfig()
    asked = requests(policy, 3)

    def seeds(some: list[Request], stream: tuple[str, int, int] = STREAM) -> list[int]:
        found = asker.jobs(GenerationCall(some, stream), config)
        return [job.parameters["seed"] for job in found]

    whole = seeds(asked)
    assert len(set(whole)) == 3 * len(asked)
    assert seeds(asked[:2]) == whole[:6]
    assert not set(seeds(asked, ("t", 2, 0))) & set(whole)
    assert not set(seeds(asked, ("u", 1, 0))) & set(whole)
    other = Asker.of(policy, seed=4).jobs(GenerationCall(asked, STREAM), config)
    assert not {job.parameters["seed"] for job in other} & set(whole)
    assert all(0 <= seed < 2**63 for seed in whole)


def test_a_job_holds_the_prompt_and_the_settings_in_order() -> None:
    policy = make_policy()
    config = VLLMSamplingConfig(
        top_k=50, top_p=0.9, temperature=0.7, max_completion_length=9, stop=("#",)
    )
    asker, asked = Asker.of(policy, seed=3), requests(policy, 2)
    first, *_, last = asker.jobs(GenerationCall(asked, STREAM), config)
    assert first.prompt_ids == asked[0].prompt.ids.tolist()
    assert last.prompt_ids == asked[-1].prompt.ids.tolist()
    parameters = dict(first.parameters)
    del parameters["seed"]
    assert parameters == {
        "max_tokens": 9,
        "temperature": 1.0,  # the worker divides the logits by 0.7
        "top_p": 0.9,
        "top_k": 16,  # the whole vocabulary
        "logprobs": 16,
        "stop": ["#"],
        "stop_token_ids": [1],
        "include_stop_str_in_output": True,
    }
    greedy = asker.jobs(GenerationCall(asked, STREAM, greedy=True), config)[0].parameters
    assert [greedy[k] for k in ("temperature", "top_p", "top_k", "logprobs")] == [0.0, 1.0, 0, 0]


def test_a_stop_text_that_is_a_special_token_is_asked_for_as_a_token() -> None:
    """vLLM looks for texts where special tokens are left out, unless it is told to keep them."""
    policy = make_policy()
    policy.tokenizer.add_special_tokens({"additional_special_tokens": ["#"]})
    (special,) = policy.tokenizer("#")["input_ids"]

    def asked(*stop: str) -> Mapping[str, Any]:
        config = VLLMSamplingConfig(stop=stop)
        (job, *_) = Asker.of(policy, seed=0).jobs(
            GenerationCall(requests(policy, 1), STREAM), config
        )
        return job.parameters

    plain = asked("1", "2,")
    assert (plain["stop"], plain["stop_token_ids"]) == (["1", "2,"], [1])
    token = asked("2,", "#")
    assert (token["stop"], token["stop_token_ids"]) == (["2,"], [1, special])
    assert "skip_special_tokens" not in {*plain, *token}
    mixed = asked("2,", "#1")
    assert (mixed["stop"], mixed["stop_token_ids"]) == (["2,", "#1"], [1])
    assert mixed["skip_special_tokens"] is False


def test_the_ends_are_those_of_the_tokenizer_and_of_the_generation_config() -> None:
    policy = make_policy()
    policy.model.generation_config.eos_token_id = [5, 7]
    assert Asker.of(policy, seed=0).ends == [1, 5, 7]


def test_an_answer_becomes_a_generation() -> None:
    found = generation(answer(), VLLMSamplingConfig(), CALL)
    assert found.response_ids.tolist() == [3, 1] and found.response_ids.dtype == torch.int64
    assert found.logp.tolist() == [-0.5, -0.25] and found.logp.dtype == torch.float32
    assert found.policy_version.tolist() == [4, 5]
    assert found.policy_version.dtype == torch.int32
    assert found.finish_reason == "stop" and not found.extras


@pytest.mark.parametrize("reason", ["abort", "error", None])
def test_a_response_that_was_not_finished_is_an_error(reason: str | None) -> None:
    with pytest.raises(UserError, match=f"ended a response with '{reason}'"):
        generation(answer(finish_reason=reason), VLLMSamplingConfig(), CALL)


def test_the_kept_mass_by_hand() -> None:
    """Probabilities .4 .3 .1 .05: top_k 3 keeps .8; of these, .7 holds top_p of .8 (.8 * .8 = .64),
    and the order in which they are reported does not matter."""
    top = [[math.log(p) for p in (0.1, 0.4, 0.3)], [math.log(p) for p in (0.05, 0.3, 0.4, 0.1)]]
    three = kept_logmass(top, VLLMSamplingConfig(top_k=3))
    torch.testing.assert_close(three.exp(), torch.tensor([0.8, 0.8]))
    nucleus = VLLMSamplingConfig(top_k=3, top_p=0.8)
    torch.testing.assert_close(kept_logmass(top, nucleus).exp(), torch.tensor([0.7, 0.7]))
    assert kept_logmass([], nucleus).shape == (0,)
    ragged = [top[0], top[0][:2], top[0][:1]]  # each position alone gives the same
    alone = torch.cat([kept_logmass([row], nucleus) for row in ragged])
    torch.testing.assert_close(kept_logmass(ragged, nucleus), alone)
    assert KEPT in generation(answer(top=top), nucleus, CALL).extras
    assert not generation(answer(top=top), nucleus, replace(CALL, greedy=True)).extras
    apart = replace(CALL, sampling=Sampling())
    assert not generation(answer(top=top), nucleus, apart).extras


def test_top_p_alone_is_refused_before_the_run() -> None:
    for name in ("vllm", "vllm_server"):
        with pytest.raises(UserError, match=r"rollout\.top_p=0\.9 needs rollout\.top_k"):
            build("rollout", name, top_p=0.9)
        assert build("rollout", name, top_p=0.9, top_k=50).matches_trainer is False
        assert name in names("rollout")


def test_responses_go_back_to_their_requests() -> None:
    policy = make_policy()
    asked = [
        Request(prompt=r.prompt, n=n) for r, n in zip(requests(policy), (2, 1, 3), strict=False)
    ]
    made = [generation(answer(ids=[i, 1]), VLLMSamplingConfig(), CALL) for i in range(6)]
    grouped = [[int(g.response_ids[0]) for g in group] for group in by_request(made, asked)]
    assert grouped == [[0, 1], [2], [3, 4, 5]]
