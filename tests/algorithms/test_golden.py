"""Losses, KL terms and the critic's loss against the numbers of other implementations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.advantages.gae import GAE, GAEConfig
from rlkit.batch import LossOutput, PolicyTerms
from rlkit.objective import Objective, loss_value
from rlkit.ops import kl_penalty
from rlkit.registry import build, entry
from tests.golden.reader import (
    Case,
    aggregate,
    aggregation,
    agree,
    agree_with,
    batch_of,
    cases,
    mask_of,
    settings,
    tensor,
)

LEVELS = {"seq_product": "product", "seq_geo": "geometric", "token": "token"}


def leaf_of(case: Case, name: str = "logp") -> Tensor:
    return tensor(case, name).requires_grad_()


def build_for(case: Case, name: str, **fields: Any) -> Any:
    """A registered loss with the case's settings."""
    return build(
        "loss", name, **settings(case, list(entry("loss", name).config.model_fields)) | fields
    )


def terms_of(out: LossOutput) -> Tensor:
    (term,) = out.terms
    return torch.where(term.mask, term.value, 0.0)


def agree_with_loss(case: Case, loss: Any) -> dict[str, float]:
    """Value, gradient and, where the case has them, the tokens' shares; returns the metrics."""
    leaf, batch = leaf_of(case), batch_of(case)
    value, metrics = loss_value(loss, leaf, batch)
    agree_with(case, value, leaf)
    if "per_token" in case["expect"]:
        out = loss(PolicyTerms(logp=leaf, entropy=torch.zeros_like(leaf)), batch)
        agree(terms_of(out), torch.tensor(case["expect"]["per_token"]) * batch.mask)
    return metrics


@pytest.mark.parametrize(
    "case", [c for c in cases("ppo", "grpo", "dr_grpo") if not c.values[0]["config"].get("beta")]
)
def test_clipped_surrogates(case: Case) -> None:
    agree_with_loss(case, build_for(case, case["loss"]))


@pytest.mark.parametrize("case", [c for c in cases("grpo") if c.values[0]["config"]["beta"]])
def test_grpo_with_a_kl_term(case: Case) -> None:
    """TRL adds beta k3(pi || ref) to each token and aggregates it the same way."""
    leaf, batch = leaf_of(case), batch_of(case)
    loss = build_for(case, "grpo")
    surrogate, _ = loss_value(loss, leaf, batch)
    penalty = kl_penalty(leaf, batch.anchor_logp["base"], batch.mask, value="k3", gradient="k3")
    shares = aggregation(case) | {"count_empty_rows": case["config"]["count_empty_rows"]}
    agree_with(
        case, surrogate + case["config"]["beta"] * aggregate(penalty, batch.mask, shares), leaf
    )


@pytest.mark.parametrize("case", cases("mix_ppg"))
def test_remix(case: Case) -> None:
    """Three different policies: the ratio is to the behaviour policy, the window around prox /
    behavior.
    """
    agree_with_loss(case, build_for(case, "remix"))


@pytest.mark.parametrize("case", cases("bapo"))
def test_bapo_and_where_its_search_ends(case: Case) -> None:
    name = {"algorithm1": "bapo", "authors_repo": "bapo_authors_repo"}[case["config"]["variant"]]
    metrics = agree_with_loss(case, build_for(case, name))
    for key in ("c_low", "c_high", "balance"):
        assert metrics[key] == pytest.approx(case["expect"]["extra"][key], abs=1e-9)


@pytest.mark.parametrize("case", cases("bapo"))
def test_the_two_bapo_names_have_the_settings_of_paper_and_code_as_defaults(case: Case) -> None:
    """`target` is the one setting the cases vary."""
    name = {"algorithm1": "bapo", "authors_repo": "bapo_authors_repo"}[case["config"]["variant"]]
    config = build("loss", name).config
    for key, value in case["config"].items():
        if key not in ("variant", "eps", "target", "log_ratio_clamp"):
            assert getattr(config, key) == value, key


@pytest.mark.parametrize("case", cases("topr"))
def test_topr_at_each_level_of_the_ratio(case: Case) -> None:
    agree_with_loss(
        case, build_for(case, "topr", ratio_level=LEVELS[case["config"]["ratio_level"]])
    )


@pytest.mark.parametrize("case", cases("reinforce"))
def test_topr_with_every_taper_at_one_is_reinforce(case: Case) -> None:
    agree_with_loss(case, build_for(case, "topr", neg_min=1.0))


@pytest.mark.parametrize("case", cases("tis", "seq_tis", "icepop", "mis"))
def test_importance_weights_on_the_clipped_surrogate(case: Case) -> None:
    config = case["config"]
    loss = build_for(case, "ppo")
    fields = {"level": config["is_level"], "mode": config["is_mode"]}
    fields |= {"is_min": config["is_min"], "is_max": config["is_max"]}
    objective = Objective(loss, corrections=[("tis", build("correction", "tis", **fields))])
    leaf, batch = leaf_of(case), batch_of(case)
    terms = PolicyTerms(logp=leaf, entropy=torch.zeros_like(leaf))
    out = objective.output(terms, batch, torch.ones_like(batch.expert))
    agree_with(case, objective.reduce(out.terms, objective.counts(out.terms)), leaf)


@pytest.mark.parametrize("case", cases("kl"))
def test_kl_estimators(case: Case) -> None:
    """k1, k2 and k3 without clamps. Clamped variants and |log r| are not offered."""
    leaf, name = leaf_of(case), case["config"]["estimator"]
    value = kl_penalty(leaf, tensor(case, "ref_logp"), mask_of(case), value=name, gradient=name)
    agree(value, torch.tensor(case["expect"]["per_token"]) * mask_of(case))
    agree_with(case, aggregate(value, mask_of(case), aggregation(case)), leaf)


@pytest.mark.parametrize("case", cases("kl_convex"))
def test_kl_convex_penalty(case: Case) -> None:
    steps = {1.0: 1, 0.7: 75}
    config = case["config"]
    anchor = build(
        "anchor", "kl_convex", beta=config["beta"], value_estimator="k3", gradient_estimator="k3"
    )
    leaf = leaf_of(case)
    value = anchor.penalty(leaf, batch_of(case), steps[config["lambda"]])
    agree_with(case, aggregate(value, mask_of(case), aggregation(case)), leaf)


@pytest.mark.parametrize("case", cases("ppo_value"))
def test_the_critics_loss(case: Case) -> None:
    gae = GAE(GAEConfig(value_clip=case["config"]["clip_value"]))
    leaf = leaf_of(case, "values")
    loss, _ = gae.value_loss(leaf, tensor(case, "old_values"), tensor(case, "returns"))
    agree_with(case, aggregate(loss, mask_of(case), aggregation(case)), leaf, "grad_values")
