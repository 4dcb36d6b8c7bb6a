"""A call with sampling settings of its own: an evaluation's, apart from training's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlkit.config.sampling import Sampling
from rlkit.models.policy import Policy
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.vllm.sampling import Asker, VLLMSamplingConfig
from tests.rollout.models import requests as few_requests
from tests.rollout.remotes import ids, remote
from tests.rollout.test_hf import engine, requests
from tests.tiny import make_policy

OWN: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "top_k": 4, "max_completion_length": 5}


@pytest.mark.parametrize("names", [*([name] for name in OWN), list(OWN)])
def test_a_call_samples_as_an_engine_with_its_settings_does(
    policy: Policy, names: list[str]
) -> None:
    """And every setting matters: without it the samples are others."""
    chosen = {name: OWN[name] for name in names}
    call = GenerationCall(requests(policy, 8), ("eval", 1, 0))
    made = engine(policy, top_k=9)
    found = ids(made.generate(replace(call, sampling=Sampling(**chosen))))
    alike = make_policy(temperature=chosen.get("temperature", 1.0))
    assert found == ids(engine(alike, **{"top_k": 9, **chosen}).generate(call))
    assert found != ids(made.generate(call)), "training samples as before"
    assert ids(made.generate(call)) == ids(engine(policy, top_k=9).generate(call))


@pytest.mark.slow
def test_another_process_samples_by_the_calls_settings() -> None:
    policy = make_policy()
    call = GenerationCall(requests(policy, 2), ("eval", 1, 0), sampling=Sampling(temperature=0.3))
    here = HFRollout(HFConfig(max_completion_length=6, num_generations=3, temperature=0.3))
    here.start(make_policy(temperature=0.3), seed=3)
    there = remote(policy, mode="ahead")
    try:
        assert ids(there.generate(call)) == ids(here.generate(call))
        plain = replace(call, sampling=None)
        assert ids(there.generate(plain)) != ids(here.generate(plain))
    finally:
        there.close()


def test_what_vllm_is_asked_for() -> None:
    """Logits come divided by 0.8, so dividing them by 0.5 too gives a temperature of 0.4."""
    policy = make_policy()
    config = VLLMSamplingConfig(temperature=0.8, top_k=5, top_p=0.7, max_completion_length=9)
    call = GenerationCall(few_requests(policy, 1), ("eval", 1, 0))
    asker = Asker.of(policy, seed=3)
    own = replace(call, sampling=Sampling(**{**OWN, "temperature": 0.4, "top_k": 0}))
    (job, *_), (before, *_) = asker.jobs(own, config), asker.jobs(call, config)
    assert job.parameters == {
        **before.parameters,
        "temperature": pytest.approx(0.5),
        "top_p": 0.9,
        "top_k": 0,
        "logprobs": 0,
        "max_tokens": 5,
    }, "top_p alone is possible, since nobody reads the kept mass"
