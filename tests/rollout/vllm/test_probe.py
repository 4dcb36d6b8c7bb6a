"""The probe that checks each sync. Without vLLM."""

from __future__ import annotations

import pytest
import torch

from rlkit.errors import UserError
from rlkit.rollout.vllm.probe import Probe
from rlkit.rollout.vllm.sampling import (
    Asker,
    VLLMSamplingConfig,
)
from tests.rollout.models import change, make_policy


def test_a_probe_measures_names_the_cause_and_stops() -> None:
    policy = make_policy(temperature=0.7)
    probe = Probe(policy, VLLMSamplingConfig(), Asker.of(policy, seed=0))
    assert probe.tolerance == 1e-3
    probe.score()
    assert probe.logp is not None
    before = probe.logp.clone()
    logits = policy.model(torch.tensor([probe.ids])).logits[0, :-1] / 0.7
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(probe.ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(before, expected, atol=1e-5, rtol=0)
    assert probe.check(before + 5e-4, 9.0, "vLLM", 1) == pytest.approx(5e-4, rel=1e-2)
    change(policy, "")
    probe.score()
    for logp, stale, cause in (
        (before, 0.0, "it still has the weights of the previous sync"),
        (before, 0.5, "its packed copy of the LM head is not that of the new weights"),
        (probe.logp + 0.01, 0.0, "some of its weights are not the trainer's"),
    ):
        with pytest.raises(UserError, match=f"sync before step 2 .*0.001.*{cause}"):
            probe.check(logp, stale, "vLLM", 2)


def test_a_probe_is_milder_in_half_precision_and_can_be_set() -> None:
    policy = make_policy()
    asker = Asker.of(policy, seed=0)
    assert Probe(policy, VLLMSamplingConfig(sync_tolerance=0.02), asker).tolerance == 0.02
    torch.nn.Module.to(policy.model, torch.bfloat16)
    assert Probe(policy, VLLMSamplingConfig(), asker).tolerance == 0.3
