"""A plain function as a loss: what it may return, and that it trains like a class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from algorithms.function import loss_class
from rlkit.batch import LossBatch, PolicyTerms
from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.testing.losses import examples
from tests.cli import SMALL, metrics, run, without_times

FILE = """
def per_token(policy, batch):
    ratio = (policy.logp - batch.behavior_logp).exp()
    return -ratio * batch.advantage


def same_as_a_class(policy, batch):
    from rlkit.batch import LossOutput, Term

    ratio = (policy.logp - batch.behavior_logp).exp()
    value = -ratio * batch.advantage
    return LossOutput(terms=[Term(name="policy", value=value, mask=batch.mask)])


same_as_a_class.scope = "token"
same_as_a_class.needs = {"behavior"}
"""


def test_a_value_per_token_or_per_response_becomes_the_policy_term() -> None:
    logp, batch = examples(frozenset({"behavior"}))

    def per_token(policy: PolicyTerms, batch: LossBatch) -> torch.Tensor:
        return -policy.logp * batch.advantage

    def per_response(policy: PolicyTerms, batch: LossBatch) -> torch.Tensor:
        return -torch.where(batch.mask, policy.logp, 0.0).sum(-1)

    found, _ = loss_value(loss_class(per_token)(), logp, batch)
    valid = batch.mask
    expected = -(logp * batch.advantage)[valid].sum() / valid.sum()
    torch.testing.assert_close(found, expected)
    sums = torch.where(valid, logp, 0.0).sum(-1)
    found, _ = loss_value(loss_class(per_response)(), logp, batch)
    # token-mean weighs a response by its share of the tokens
    expected = -(sums * valid.sum(-1)).sum() / valid.sum()
    torch.testing.assert_close(found, expected)
    assert loss_class(per_token) is loss_class(per_token)


def test_a_scalar_is_refused_since_it_cannot_be_aggregated_over_micro_batches() -> None:
    logp, batch = examples(frozenset())

    def scalar(policy: PolicyTerms, batch: LossBatch) -> torch.Tensor:
        return policy.logp.mean()

    with pytest.raises(UserError, match=r"loss 'scalar' returned shape \[\]; return one value per"):
        loss_value(loss_class(scalar)(), logp, batch)


@pytest.mark.slow
def test_a_function_in_a_file_trains_and_its_attributes_change_no_number(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    for name in ("per_token", "same_as_a_class"):
        arguments = ("algorithm=grpo", f"loss=./mine.py:{name}", f"output_dir={name}")
        done = run(*SMALL, *arguments, "loss.log_ratio_clamp=null", cwd=tmp_path)
        assert done.status == 0, done.err
    one, other = (
        without_times(metrics(tmp_path / name)) for name in ("per_token", "same_as_a_class")
    )
    losses = [[row.get("policy/loss", 0.0) for row in rows] for rows in (one, other)]
    assert losses[0][1] != 0
    assert losses[0] == pytest.approx(losses[1])
