"""Reads the golden cases: numbers that other implementations gave in float64."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.objective import Objective

FILE = Path(__file__).with_name("losses.jsonl.gz")
Case = dict[str, Any]


@cache
def all_cases() -> list[Case]:
    with gzip.open(FILE, "rt") as lines:
        return [json.loads(line) for line in lines]


def cases(*losses: str) -> list[Any]:
    """The cases of these losses, as arguments of a parametrised test."""
    found = [case for case in all_cases() if case["loss"] in losses]
    assert {case["loss"] for case in found} == set(losses), "a loss has no golden case"
    return [pytest.param(case, id=case["case"]) for case in found]


def tensor(case: Case, name: str) -> Tensor:
    return torch.tensor(case["inputs"][name], dtype=torch.float64)


def mask_of(case: Case) -> Tensor:
    return torch.tensor(case["inputs"]["mask"]).bool()


def batch_of(case: Case) -> LossBatch:
    """The case's inputs; log-probs it does not have are NaN, so that reading them would show."""
    inputs, mask = case["inputs"], mask_of(case)
    unknown = torch.full(mask.shape, torch.nan, dtype=torch.float64)
    advantage = (
        tensor(case, "advantages") if "advantages" in inputs else torch.zeros(len(mask)).double()
    )
    known = {
        name: tensor(case, name) if name in inputs else unknown
        for name in ("behavior_logp", "prox_logp")
    }
    references = {"base": "ref_logp", "precedent": "prev_logp"}
    return LossBatch(
        mask=mask,
        advantage=advantage if advantage.dim() == 2 else advantage[:, None].expand(mask.shape),
        **known,
        anchor_logp={name: tensor(case, key) for name, key in references.items() if key in inputs},
        reward=torch.tensor(inputs.get("rewards", [0.0] * len(mask)), dtype=torch.float64),
        group=torch.tensor(inputs.get("group", [0] * len(mask))),
        age=torch.zeros(len(mask), dtype=torch.long),
        expert=torch.zeros(len(mask), dtype=torch.bool),
    )


def settings(case: Case, names: Sequence[str]) -> dict[str, Any]:
    """The case's values of the named fields, with its aggregation; an absent clamp is none."""
    found = {name: case["config"][name] for name in names if name in case["config"]}
    return {"log_ratio_clamp": None, **aggregation(case), **found}


def aggregation(case: Case) -> dict[str, Any]:
    name, _, length = re.fullmatch(
        r"([a-z-]+)(\((\d+)\))?", case["expect"]["aggregation"]
    ).groups()[0:3]  # type: ignore[union-attr]
    out: dict[str, Any] = {"aggregation": name}
    return out | ({"norm_length": int(length)} if length else {})


class Values(PolicyLoss):
    """Aggregates given values, for cases that are no policy loss."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        return LossOutput(terms=[Term(name="policy", value=policy.logp, mask=batch.mask)])


def aggregate(value: Tensor, mask: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Per-token values [B, T] as one number, the way the framework aggregates a loss's terms."""
    objective = Objective(Values(LossConfig(**config)))
    terms = [Term(name="policy", value=value, mask=mask)]
    return objective.reduce(terms, objective.counts(terms))


def agree(found: Tensor, expected: Any) -> None:
    """Element by element within 1e-9 + 1e-6 |expected|, the tolerance of the golden numbers."""
    torch.testing.assert_close(
        found.detach(), torch.as_tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9
    )


def agree_with(case: Case, loss: Tensor, leaf: Tensor, gradient: str = "grad_logp") -> None:
    """The loss and its gradient; masked positions must have exactly none."""
    agree(loss, case["expect"]["loss"])
    (found,) = torch.autograd.grad(loss, leaf)
    agree(found, case["expect"][gradient])
    assert (found[~mask_of(case)] == 0).all()
