"""Held-out preferences: how the policy ranks them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlkit.batch import Group
from rlkit.models.policy import Policy
from rlkit.ops import sequence_sum
from rlkit.tasks.prompts import Prompts
from rlkit.training.collate import collate
from rlkit.training.micro_batches import Forwards, MicroBatches
from rlkit.training.pair_evaluation import PairEvaluator, preference, share_above
from tests.steps import move, parts

PAIRS = [("1+1=", "2", "34"), ("2+2=", "4,4#4", "5"), ("3+3=", "6#", "9,9#9"), ("4=", "7", "8")]


def held_out(policy: Policy) -> list[Group]:
    rows = [{"prompt": prompt} for prompt, *_ in PAIRS]
    prompts = Prompts("eval", rows, policy.tokenizer)
    respond = prompts.encoder.response
    return [
        preference(prompts[i], [respond(chosen), respond(rejected)])
        for i, (_, chosen, rejected) in enumerate(PAIRS)
    ]


def evaluator(policy: Policy, loss: str = "online_dpo", *, alone: bool = False) -> PairEvaluator:
    chosen = parts(loss, "base", "group_mean")
    chosen.anchor.rebase(policy)
    return PairEvaluator(
        groups=held_out(policy),
        policy=policy,
        parts=chosen,
        forwards=Forwards(MicroBatches(40)),
        alone=alone,
    )


def scores(policy: Policy) -> Tensor:
    """[pairs, 2], the log-probs of the responses."""
    rows = collate(held_out(policy), 0)
    with torch.no_grad():
        return sequence_sum(policy.logp(rows.tokens), rows.batch.mask).view(-1, 2)


def test_the_share_above_zero_counts_ties_half() -> None:
    tokens = torch.tensor([1, 1, 1, 100])
    assert share_above(torch.tensor([1.0, 0.0, -2.0, 3.0]), tokens) == 0.625
    assert share_above(torch.tensor([2e-5, -2e-5, -2e-5, 2e-5]), tokens) == 0.375


def test_the_reference_ranks_half_and_a_moved_policy_as_its_log_ratios(policy: Policy) -> None:
    found = evaluator(policy)
    before, base = found.run(0), scores(policy)
    tokens = collate(held_out(policy), 0).batch.mask.sum(-1).view(-1, 2).sum(-1)
    assert before["eval/pairs/accuracy"] == 0.5
    assert before["eval/pairs/margin"] == pytest.approx(0, abs=1e-5)
    margin = base[:, 0] - base[:, 1]
    assert before["eval/pairs/logp_accuracy"] == share_above(margin, tokens)
    move(policy)
    after, ratio = found.run(1), scores(policy) - base
    margin = ratio[:, 0] - ratio[:, 1]
    assert after["eval/pairs/accuracy"] == share_above(margin, tokens)
    assert after["eval/pairs/margin"] == pytest.approx(float(margin.mean()), abs=1e-5)
    assert after["eval/pairs/chosen"] == pytest.approx(float(ratio[:, 0].mean()), abs=1e-5)
    assert after["eval/pairs/rejected"] == pytest.approx(float(ratio[:, 1].mean()), abs=1e-5)
    assert not any(math.isnan(value) for value in after.values())
    assert found.run(1) == after, "the reference's log-probs are kept"


def test_a_new_base_is_a_new_reference(policy: Policy) -> None:
    found = evaluator(policy)
    found.run(0)
    move(policy)
    assert abs(found.run(1)["eval/pairs/margin"]) > 1e-3
    found.parts.anchor.rebase(policy)
    assert found.run(1)["eval/pairs/margin"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("loss", "score"), [("online_dpo", "accuracy"), ("sft", "logp_accuracy")])
def test_alone_its_accuracy_is_the_score_of_the_run(policy: Policy, loss: str, score: str) -> None:
    """A loss without a reference has no implicit reward."""
    found = evaluator(policy, loss, alone=True)
    move(policy)
    metrics = found.run(1)
    assert metrics["eval/pass@1"] == metrics[f"eval/pairs/{score}"]
    assert ("eval/pairs/accuracy" in metrics) == (loss == "online_dpo")
    assert "eval/pass@1" not in replace(found, alone=False).run(1)
