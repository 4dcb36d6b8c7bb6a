"""Episodes whose turns vLLM samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from rlkit.config.turns import TurnsConfig
from rlkit.interfaces import Tokens
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.turns import TurnsEngine
from rlkit.rollout.vllm.engine import VLLMConfig, VLLMRollout
from tests.rollout.echo import Echo, chat_policy
from tests.rollout.test_turns import call_of, flat, runs_of, same

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def engine() -> Iterator[TurnsEngine]:
    pytest.importorskip("vllm")
    config = VLLMConfig(max_completion_length=60, max_prompt_length=60, kv_cache_gb=0.1)
    made = TurnsEngine(VLLMRollout(config), Echo(), TurnsConfig())
    made.start(chat_policy(hidden_size=64, intermediate_size=64, num_key_value_heads=1), seed=5)
    made.sync(3)
    yield made
    made.close()


def test_its_turns_have_the_log_probs_and_versions_of_their_tokens(engine: TurnsEngine) -> None:
    call, several = call_of(engine.policy), 0
    for request, group in zip(call.requests, engine.generate(call), strict=True):
        for g in group:
            whole = engine.policy.logp(Tokens.of([request.prompt.ids], [g.response_ids]))[0]
            mask = g.loss_mask
            torch.testing.assert_close(g.logp[mask], whole[mask], atol=1e-4, rtol=0)
            assert (g.logp[~mask] == 0).all() and set(g.policy_version.tolist()) == {3}
            several += len(runs_of(mask)) > 1
    assert several


def test_its_samples_do_not_depend_on_who_else_is_asked(engine: TurnsEngine) -> None:
    call: GenerationCall = call_of(engine.policy)
    whole = flat(engine.generate(call))
    shares = [
        g
        for part in (slice(0, 2), slice(2, 4))
        for g in flat(engine.generate(replace(call, part=part)))
    ]
    assert all(same(a, b) for a, b in zip(whole, shares, strict=True))
