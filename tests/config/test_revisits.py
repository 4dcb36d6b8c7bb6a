"""Which settings of a rollout go with drafts and with a behavior adapter."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.rollout.base import RolloutConfig
from rlkit.rollout.hf import HFConfig
from rlkit.rollout.layer_skip import LayerSkipConfig
from rlkit.rollout.vllm.engine import VLLMConfig

DRAFT: dict[str, Any] = {"draft": "spec_rl"}
PROPS: dict[str, Any] = {"behavior": "props"}


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (HFConfig, DRAFT | PROPS, "both choose what is sampled"),
        (HFConfig, DRAFT | {"mode": "ahead"}, "draft=spec_rl keeps .* use rollout.mode=sync"),
        (HFConfig, DRAFT | {"oversample": 0.5}, "draft=spec_rl .* use rollout.oversample=0"),
        (HFConfig, DRAFT | {"sync_every": 2}, "draft=spec_rl .* use rollout.sync_every=1"),
        (HFConfig, PROPS | {"mode": "async"}, "behavior=props keeps .* use rollout.mode=sync"),
        (HFConfig, PROPS | {"oversample": 0.5}, "behavior=props .* use rollout.oversample=0"),
        (HFConfig, PROPS | {"sync_every": 2}, "behavior=props .* use rollout.sync_every=1"),
        (RolloutConfig, DRAFT, "can continue a response, and this one cannot: leave it at none"),
        (LayerSkipConfig, DRAFT, "can continue a response, and this one cannot"),
        (LayerSkipConfig, PROPS, "adapter on the policy's own modules: use rollout=hf"),
        (VLLMConfig, PROPS, "adapter on the policy's own modules: use rollout=hf"),
        (VLLMConfig, DRAFT | {"draft_uniforms": "stored"}, "that drew each token: use rollout=hf"),
        (
            HFConfig,
            DRAFT | {"draft_uniforms": "stored", "draft_rule": "lenient"},
            "stored is for rollout.draft_rule=exact: leave it at new",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    kind: type[RolloutConfig], fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        kind.model_validate(fields)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (HFConfig, DRAFT),
        (HFConfig, DRAFT | {"draft_uniforms": "stored"}),
        (HFConfig, PROPS),
        (VLLMConfig, DRAFT),
        (VLLMConfig, DRAFT | {"draft_rule": "lenient"}),
        (LayerSkipConfig, {}),
        (HFConfig, {"mode": "ahead"}),
    ],
)
def test_the_rest_is_allowed(kind: type[RolloutConfig], fields: dict[str, Any]) -> None:
    made = kind.model_validate(fields)
    assert (made.draft, made.behavior) == (
        fields.get("draft", "none"),
        fields.get("behavior", "policy"),
    )
