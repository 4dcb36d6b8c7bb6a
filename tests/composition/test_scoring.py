"""Log-probs of stored responses under a model that the user names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlkit.composition.composition import Composition, Given
from rlkit.composition.scoring import NamedModel, check_scorer, rollout_opener
from rlkit.composition.session import policy_of
from rlkit.distributed.processes import Processes
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.stored.card import weights_hash
from rlkit.tasks.encode import Encoder
from rlkit.training.collate import collate
from tests.compositions import composed
from tests.steps import move, rollout
from tests.tiny import make_policy


@pytest.fixture(scope="module")
def run() -> tuple[Composition, Policy]:
    c = composed("model.device=cpu")
    return c, policy_of(c, None)


def test_the_base_is_the_model_before_training(run: tuple[Composition, Policy]) -> None:
    """At the run's temperature, also once the policy has moved; as a folder it is the same."""
    c, policy = run
    groups = rollout(policy, 1)
    policy = policy.at(0.7)
    tokens = collate(groups, 0).tokens
    before, weights = policy.logp(tokens), weights_hash(policy.model.state_dict())
    move(policy)
    assert not torch.allclose(policy.logp(tokens), before, atol=1e-3)
    base = NamedModel(c, policy, "base")
    found = base(groups)
    assert [len(logp) for logp in found] == [len(s.response_ids) for g in groups for s in g.samples]
    for logp, row in zip(found, before, strict=True):
        torch.testing.assert_close(logp, row[: len(logp)], atol=1e-5, rtol=0)
    assert (base.name, base.weights) == ("embedded", weights)
    assert not any(p.requires_grad for p in base.policy.model.parameters())
    assert base.policy.head is not None, "no full logits"


def test_another_tokenizer_cannot_score(run: tuple[Composition, Policy], tmp_path: Path) -> None:
    other = make_policy()
    other.model.save_pretrained(tmp_path)
    other.tokenizer.add_tokens(["one more"])
    other.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"buffer\.score_with=.* has another tokenizer"):
        NamedModel(*run, str(tmp_path))


def test_what_is_no_model_is_one_line_with_the_settings_name(
    run: tuple[Composition, Policy], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^buffer\.score_with=.* is not a model folder"):
        NamedModel(*run, str(tmp_path))


def test_what_can_be_known_before_the_model_is_loaded() -> None:
    c = composed()
    check_scorer(c, "base")
    with pytest.raises(UserError, match=r"score_with=/no/where: there is no such folder"):
        check_scorer(c, "/no/where")
    policy = make_policy()
    given = replace(c, given=Given(model=policy.model, tokenizer=policy.tokenizer))
    with pytest.raises(UserError, match=r"score_with=base .*in memory"):
        check_scorer(given, "base")
    check_scorer(given, "some/name")
    sharded = Processes()
    sharded.shards_weights = True
    with pytest.raises(UserError, match="whole copy of a model"):
        check_scorer(composed(processes=sharded), "base")


def test_the_opener_knows_whether_log_probs_are_read(run: tuple[Composition, Policy]) -> None:
    _, policy = run
    encoder = Encoder(policy.tokenizer)
    for algorithm, reads in (("topr", True), ("sft", False)):
        c = composed(f"algorithm={algorithm}")
        opener = rollout_opener(c, policy, encoder, print)
        assert opener.reads_behavior is reads and opener.temperature == policy.temperature
