"""What every engine's settings allow, and how much room a response has."""

from __future__ import annotations

import pytest
import torch

from rlkit.batch import Prompt, Request
from rlkit.rollout.base import GenerationCall, RolloutConfig, cache_bytes
from tests.tiny import make_policy


def test_a_lag_by_both_means_is_refused() -> None:
    with pytest.raises(ValueError, match="rollout.sync_every=3 is for rollout.mode=sync"):
        RolloutConfig(mode="ahead", sync_every=3)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, 0), ({"mode": "ahead"}, 1), ({"mode": "async", "max_staleness": 7}, 7)],
)
def test_steps_ahead(fields: dict[str, object], expected: int) -> None:
    assert RolloutConfig(**{"max_staleness": 4, **fields}).steps_ahead == expected


def test_only_an_engine_that_goes_on_can_oversample() -> None:
    class Going(RolloutConfig):
        continues = True

    assert Going(oversample=0.5).oversample == 0.5
    with pytest.raises(ValueError, match="needs an engine that can"):
        RolloutConfig(oversample=0.5)
    with pytest.raises(ValueError, match="is for rollout.mode=sync"):
        Going(oversample=0.5, mode="ahead")


@pytest.mark.parametrize(
    ("fields", "truncates"), [({}, False), ({"top_p": 0.9}, True), ({"top_k": 5}, True)]
)
def test_a_sampler_that_truncates_is_not_the_policy(
    fields: dict[str, float], truncates: bool
) -> None:
    assert RolloutConfig.model_validate(fields).truncates == truncates


@pytest.mark.parametrize(
    ("prefix", "limit", "room"), [(0, None, 10), (4, None, 6), (4, 3, 3), (4, 9, 6), (10, None, 0)]
)
def test_the_room_of_a_response(prefix: int, limit: int | None, room: int) -> None:
    prompt = Prompt(prompt_id="p", text_or_messages="1", ids=torch.tensor([3]), columns={})
    request = Request(
        prompt=prompt, n=1, prefix=torch.zeros(prefix, dtype=torch.int64), max_tokens=limit
    )
    assert RolloutConfig(max_completion_length=10).room(request) == room


def test_a_call_is_for_all_requests_unless_a_part_is_named() -> None:
    prompt = Prompt(prompt_id="p", text_or_messages="1", ids=torch.tensor([3]), columns={})
    asked = [Request(prompt=prompt, n=n) for n in (1, 2, 3)]
    assert GenerationCall(asked, ("t", 1, 0)).own == asked
    assert GenerationCall(asked, ("t", 1, 0), part=slice(1, 3)).own == asked[1:]


def test_the_bytes_of_a_cache_are_those_of_keys_and_values_of_every_layer() -> None:
    policy = make_policy(num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3)
    inputs = torch.tensor([[3, 4, 5, 6, 7]])
    cache = policy.model(input_ids=inputs, use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cache_bytes(policy, 5, 4) == held
