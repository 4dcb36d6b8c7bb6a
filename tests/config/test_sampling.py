"""The sampling of an evaluation: what is set, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rlkit.batch import Request
from rlkit.config.sampling import Sampling
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig
from tests.tiny import make_policy, make_prompts


def test_only_what_is_set_differs_from_the_engines_own_settings() -> None:
    """top_k=0 is a setting too: all tokens."""
    config = HFConfig(temperature=0.7, top_k=5, max_completion_length=9, generation_batch_size=3)
    call = GenerationCall([], ("eval", 0, 0), sampling=Sampling(top_k=0, max_completion_length=4))
    assert call.settings(config) == config.model_copy(
        update={"top_k": 0, "max_completion_length": 4}
    )
    (prompt,) = make_prompts(make_policy(), ["1+1="])
    assert call.settings(config).room(Request(prompt=prompt, n=1)) == 4
    assert GenerationCall([], ("eval", 0, 0)).settings(config) is config


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"top_p": 0}, {"top_k": -1}, {"beam": 2}])
def test_what_no_sampler_can_do_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate(wrong)
