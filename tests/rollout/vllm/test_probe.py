"""The probe that checks each sync. Without vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.rollout.vllm.probe import Evidence, Probe
from rlkit.rollout.vllm.sampling import Asker, VLLMSamplingConfig
from tests.rollout.models import change, make_policy

RECEIVED = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}


def make_probe(**fields: Any) -> Probe:
    policy = make_policy(temperature=0.7)
    probe = Probe(policy, VLLMSamplingConfig(**fields), Asker.of(policy, seed=0))
    probe.score()
    return probe


def evidence(logp: Tensor, *, stale: float = 0.0, different: Sequence[str] = ()) -> Evidence:
    report = {"received": RECEIVED, "compared": list("abcd"), "different": list(different)}
    return Evidence(logp=logp, stale_head=stale, dtype=torch.float32, report=report)


def scored(probe: Probe) -> Tensor:
    assert probe.logp is not None
    return probe.logp.clone()


def test_a_probe_measures_names_the_cause_and_stops() -> None:
    probe = make_probe()
    policy, before = probe.policy, scored(probe)
    logits = policy.model(torch.tensor([probe.ids])).logits[0, :-1] / 0.7
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(probe.ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(before, expected, atol=1e-5, rtol=0)
    assert probe.check(evidence(before + 5e-4), "vLLM", 1) == pytest.approx(5e-4, rel=1e-2)
    change(policy, "")
    probe.score()
    for found, cause in (
        (evidence(before), "it still has the weights of the previous sync"),
        (evidence(before, stale=1.5), "its packed copy of the LM head is not that of the new"),
        (evidence(scored(probe) + 0.01), "some of its weights are not the trainer's"),
    ):
        with pytest.raises(UserError, match=f"sync before step 2 .*0.001.*{cause}"):
            probe.check(found, "vLLM", 2)


def test_a_stale_head_is_refused_whatever_the_log_probs() -> None:
    probe = make_probe(sync_tolerance=9.0)
    assert probe.check(evidence(scored(probe), stale=1.0), "vLLM", 1) == 0
    with pytest.raises(UserError, match="packed copy of the LM head"):
        probe.check(evidence(scored(probe), stale=1.01), "vLLM", 2)


def test_weights_that_differ_are_refused_whatever_the_log_probs() -> None:
    """Those that already differ after an engine's first sync are of a form of its own."""
    probe = make_probe(sync_tolerance=9.0)
    right = scored(probe)
    probe.check(evidence(right, different=["d"]), "one", 1)
    probe.check(evidence(right), "two", 1)
    probe.check(evidence(right, different=["d"]), "one", 2)
    with pytest.raises(UserError, match="two .*does not hold the weights it received: d$"):
        probe.check(evidence(right, different=["d"]), "two", 2)
    with pytest.raises(UserError, match="one .*it received: a, b, c$"):
        probe.check(evidence(right, different=["a", "b", "c", "d"]), "one", 2)
    with pytest.raises(UserError, match="two .*it received: a, b, c and 1 more$"):
        probe.check(evidence(right, different=["a", "b", "c", "d"]), "two", 2)


def test_what_arrives_must_be_what_was_sent() -> None:
    probe = make_probe()
    probe.check(evidence(scored(probe)), "one", 1, dict(RECEIVED))
    for sent, names in (
        ({**RECEIVED, "c": 0}, "c"),
        ({**RECEIVED, "f": 6}, "f"),
        ({name: RECEIVED[name] for name in "abcd"}, "e"),
    ):
        with pytest.raises(UserError, match=f"it received other weights than were sent: {names}$"):
            probe.check(evidence(scored(probe)), "one", 2, sent)


def test_the_bound_is_measured_again_only_if_a_difference_is_above_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounds = iter([0.5, 0.7])
    monkeypatch.setattr("rlkit.rollout.vllm.probe.rounding_bound", lambda *_: next(bounds))
    probe = make_probe()
    assert [probe.bound(torch.bfloat16, found) for found in (0.1, 0.5, 0.6, 0.7)] == [
        *(0.5, 0.5, 0.7, 0.7)
    ]
    assert make_probe(sync_tolerance=0.02).bound(torch.bfloat16, 1.0) == 0.02
