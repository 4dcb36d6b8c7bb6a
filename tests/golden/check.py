"""Compare the parts with golden cases: `python tests/golden/check.py FILE [--float32]`.

FILE holds one JSON record a line (plain or gzip): a loss, advantage, KL term, critic loss or
schedule with its inputs and the numbers another implementation gave. Each record's part is built by
name and run through the framework's own aggregation. What stands here is names and units alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import (
    REPLAY_WEIGHT,
    AdvantageBatch,
    AdvantageOutput,
    Group,
    LossBatch,
    LossOutput,
    PolicyTerms,
    Prompt,
    Sample,
    Score,
    Term,
)
from rlkit.distributed.processes import SINGLE
from rlkit.interfaces import AdvantageEstimator, LossConfig, PolicyLoss
from rlkit.ops import (
    Clamps,
    adaptive_coefficient,
    clipped_value_loss,
    kl_penalty,
    kl_value,
    masked_log_ratio,
    ratio_weighted,
    staircase,
)
from rlkit.registry import build, entry
from rlkit.training.lr_ess import EssRate
from rlkit.training.objective import Objective

Case = Mapping[str, Any]
Config = dict[str, Any]


class Mismatch(Exception):
    """A number, a name or a key that does not agree."""


# ---- what the golden names are called here


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The parts that give a golden loss, and which of its config keys each one takes."""

    loss: str | Callable[[Config], str]
    rename: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Golden key -> the loss's field or fields, where they differ."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Golden setting -> ours, where they differ."""
    notes: Sequence[str] = ()
    """Keys that restate another key, a variant's name or the shape of the case."""
    correction: str = ""
    correction_keys: Mapping[str, str] = field(default_factory=dict)
    advantage: str = ""
    advantage_keys: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the reference code implies and no key names."""
    penalty: bool = False
    """Whether beta, kl_estimator and kl_bias_correction are the anchor's."""


PENALTY = ("beta", "kl_estimator", "kl_bias_correction")
IS_KEYS = {
    "is_level": "level",
    "is_mode": "mode",
    "is_min": "is_min",
    "is_max": "is_max",
    "is_log_clamp": "is_log_clamp",
    "is_batch_normalize": "is_batch_normalize",
}
ROW_KEYS = {key: key for key in ("is_min", "is_max", "is_log_clamp")}
REC_ALIASES = (
    *("rec_oneside_is", "rec_oneside_nois", "rec_twoside_is", "rec_ring_is", "rec_ring_nois"),
    *("rec_gspo_is", "rec_gspo_nois", "rep_asymre", "rep_opmd", "red_weight"),
)


def surrogate(name: str, **fields: Any) -> Recipe:
    return Recipe(loss=name, penalty=True, **fields)


def weighted(correction: str, keys: Mapping[str, str] = IS_KEYS, **fields: Any) -> Recipe:
    return Recipe(loss="ppo", correction=correction, correction_keys=keys, **fields)


LOSSES: dict[str, Recipe] = {
    **{name: surrogate(name) for name in ("ppo", "grpo", "dr_grpo", "dapo")},
    **{
        name: Recipe(loss=name)
        for name in (
            *("reinforce", "gpg", "importance_sampling", "rloo", "gspo", "luspo", "gmpo", "sapo"),
            *("vespo", "sppo", "dro", "gepo", "p3o", "luffy", "minpro", "kl_cov"),
            *("clip_cov", "ctpo", "aspo", "rl_plus", "trapo", "tba", "qrpo", *REC_ALIASES),
        )
    },
    "cispo": Recipe(loss="cispo", notes=("ratio_min", "ratio_max")),
    "flowrl": Recipe(loss="flowrl"),
    "hpt": Recipe(loss="hpt"),
    "topr": Recipe(
        loss="topr", words={"seq_product": "product", "seq_geo": "geometric", "token": "token"}
    ),
    "bapo": Recipe(
        loss=lambda c: "bapo" if c["variant"] == "algorithm1" else "bapo_authors_repo",
        notes=("variant", "eps"),
    ),
    "mix_ppg": Recipe(loss="remix"),
    "asymre": Recipe(
        loss="asymre", advantage="asymre", advantage_keys={"baseline_shift": "baseline_shift"}
    ),
    "opmd": Recipe(
        loss="opmd", advantage="opmd", advantage_keys={"baseline": "baseline", "tau": "tau"}
    ),
    "oapl": Recipe(loss="oapl", advantage="oapl", advantage_keys={"beta1": "beta1"}),
    "red_drop": Recipe(
        loss="red_drop",
        advantage="red_drop",
        advantage_keys={"drop": "drop", "drop_choice": "drop_choice"},
    ),
    "agro": Recipe(loss="agro", advantage="group_mean"),
    "gvpo": Recipe(loss="gvpo", notes=("group_size",)),
    "m2po": Recipe(
        loss=lambda c: {"paper": "m2po"}.get(c["variant"], f"m2po_{c['variant']}"),
        notes=("variant", "denominator"),
    ),
    "dppo_tv": Recipe(loss="dppo"),
    "dppo_kl": Recipe(loss="dppo_kl"),
    "ipo_tv": Recipe(loss="dppo_ipo", rename={"delta": ("delta_low", "delta_high")}),
    "online_dpo": Recipe(loss="online_dpo", fields={"equal_rewards": "pair"}),
    "decoupled_ppo": Recipe(loss="decoupled_ppo", words={"none": "truncate"}, notes=("is_level",)),
    "tis": weighted("tis"),
    "seq_tis": weighted("seq_tis"),
    "icepop": weighted("icepop"),
    "mis": weighted("mis"),
    "seq_mask_tis": weighted(
        "seq_mask_tis", ROW_KEYS, notes=("is_level", "is_mode", "is_batch_normalize")
    ),
    "geo_mask": weighted(
        "geo_mask",
        ROW_KEYS,
        notes=("is_level", "is_mode", "is_batch_normalize", "denominator"),
    ),
    "a3po": Recipe(loss="decoupled_ppo", fields={"prox": "interpolated"}),
    "trm": Recipe(
        loss="ppo",
        correction="trm",
        correction_keys={"trm_delta": "delta", "trm_estimator": "estimator"},
    ),
    "mu_grpo_veto": Recipe(
        loss="ppo",
        correction="mu_grpo_veto",
        correction_keys={"veto_threshold": "threshold"},
    ),
    "replay_weight": Recipe(loss="ppo", correction="replay_weight"),
    "mopd": Recipe(
        loss="importance_sampling",
        advantage="mopd",
        advantage_keys={"is_min": "is_min", "is_max": "is_max"},
    ),
    "opsm": surrogate(
        "grpo",
        correction="opsm",
        correction_keys={"opsm_delta": "delta", "opsm_anchor": "reference"},
    ),
}

ADVANTAGES: dict[str, str] = {
    "adv/grpo": "group_norm",
    "adv/grpo_trl": "group_norm",
    "adv/grpo_batch_std": "group_norm",
    "adv/rec_std": "group_norm",
    "adv/dr_grpo": "group_mean",
    "adv/spo": "spo",
    "adv/rloo_trl": "rloo",
    "adv/rloo_vectorized": "rloo",
    **{
        f"adv/{name}": name
        for name in (
            *("rloo", "gae", "reinforce_pp", "reinforce_pp_baseline", "remax", "opo", "gpg"),
            *("grpo_passk", "gdpo", "asymre", "opmd", "oapl", "maxrl", "psr_nsr", "red_drop"),
            *("batch_norm", "group_mean", "reward", "mopd"),
        )
    },
}
ADVANTAGE_NOTES = {"whiten_unbiased": True}
"""Golden keys with the only value there is here."""

# ---- inputs


REFERENCES = {"base": "ref_logp", "previous": "prev_logp", "teacher": "teacher_logp"}
EXTRA_INPUTS = {"replay_weight": REPLAY_WEIGHT}
"""Golden inputs that a buffer hands over with its samples, and by which name."""


@dataclass(frozen=True)
class Inputs:
    """A record's tensors."""

    case: Case
    dtype: torch.dtype

    @property
    def mask(self) -> Tensor:
        return torch.tensor(self.case["inputs"]["mask"]).bool()

    def get(self, name: str) -> Tensor:
        """The tensor of that name; NaN where the record has none, so that reading it would show."""
        value = self.case["inputs"].get(name)
        if value is None:
            return torch.full(self.mask.shape, torch.nan, dtype=self.dtype)
        return torch.tensor(value, dtype=self.dtype)

    def rows(self, name: str) -> Tensor:
        found = self.case["inputs"].get(name)
        return (
            torch.zeros(len(self.mask), dtype=self.dtype)
            if found is None
            else torch.tensor(found, dtype=self.dtype)
        )

    def has(self, name: str) -> bool:
        return name in self.case["inputs"]

    @property
    def references(self) -> dict[str, Tensor]:
        return {name: self.get(key) for name, key in REFERENCES.items() if self.has(key)}

    @property
    def made(self) -> dict[str, Tensor]:
        """Ages and what is replayed, 0 and false unless the record says so.

        A record that has ages alone comes from code whose weights never lag: what is old there was
        replayed.
        """
        given, none = self.case["inputs"], [0] * len(self.mask)
        age = torch.tensor(given.get("age", none))
        return {"age": age, "replayed": torch.tensor(given.get("replayed", age.tolist())) > 0}

    @property
    def group(self) -> Tensor:
        return torch.tensor(self.case["inputs"].get("group", [0] * len(self.mask)))

    def batch(self) -> LossBatch:
        mask, advantage = self.mask, self.rows("advantages")
        expert = torch.tensor(self.case["inputs"].get("expert_mask", [[0]] * len(mask)))
        return LossBatch(
            mask=mask,
            advantage=advantage if advantage.dim() == 2 else advantage[:, None] + mask * 0,
            behavior_logp=self.get("behavior_logp"),
            prox_logp=self.get("prox_logp"),
            anchor_logp=self.references,
            extras={ours: self.rows(name) for name, ours in EXTRA_INPUTS.items() if self.has(name)},
            reward=self.rows("rewards"),
            group=self.group,
            age=self.made["age"],
            replayed=self.made["replayed"],
            expert=expert.bool().any(-1),
        )

    def advantage_batch(self, reward: Tensor, token_reward: Tensor) -> AdvantageBatch:
        return AdvantageBatch(
            reward=reward,
            rewards={
                name: torch.tensor(values, dtype=self.dtype)
                for name, values in self.case["inputs"].get("reward_components", {}).items()
            },
            token_reward=token_reward,
            greedy_reward=self.rows("reward_baselines"),
            mask=self.mask,
            group=self.group,
            age=self.made["age"],
            replayed=self.made["replayed"],
            expert=torch.zeros(len(self.mask), dtype=torch.bool),
            values=self.get("values"),
            behavior_logp=self.get("behavior_logp"),
            prox_logp=self.get("prox_logp"),
            anchor_logp=self.references,
        )


# ---- agreement


@dataclass(frozen=True)
class Tolerance:
    """How close numbers must be."""

    single: bool

    def agree(self, what: str, found: Any, expected: Any, *, gradient: bool = False) -> None:
        """Raise Mismatch unless they agree element by element."""
        a = torch.as_tensor(found).detach().double()
        b = torch.as_tensor(expected).double()
        if a.shape != b.shape:
            raise Mismatch(f"{what}: shape {list(a.shape)}, expected {list(b.shape)}")
        if not self.single:
            slack = 1e-9 + 1e-6 * b.abs()
        elif gradient:
            top = float(b.abs().max()) if b.numel() else 0.0
            slack = 1e-3 * (b.abs() + 1e-3 * top) + 1e-9
        else:
            slack = 1e-4 * (b.abs() + 0.01)
        wrong = ~((a - b).abs() <= slack)
        if wrong.any():
            i = tuple(wrong.nonzero()[0].tolist())
            raise Mismatch(f"{what}{list(i)}: {a[i].item():.12g}, expected {b[i].item():.12g}")


def once(config: Config, keys: Sequence[str]) -> Config:
    """Take keys out of a config."""
    return {key: config.pop(key) for key in keys if key in config}


def nothing_left(config: Config, what: str) -> None:
    if config:
        raise Mismatch(f"unknown {what}: {', '.join(sorted(config))}")


def aggregation(case: Case) -> Config:
    """The record's aggregation in the framework's words."""
    name = case["expect"]["aggregation"]
    if name in ("seq-mean", "group-mean"):
        return {"aggregation": "seq-mean-token-mean", "count_empty_rows": True}
    if name == "pair-mean":
        return {"aggregation": "seq-mean-token-mean"}
    if name == "seq-sum/(G-1)":
        return {
            "aggregation": "seq-mean-token-mean",
            "count_empty_rows": True,
            "reduction": "batch-sum",
        }
    plain = re.fullmatch(r"([a-z-]+)(?:\((\d+)\))?", name)
    if plain is None:
        raise Mismatch(f"unknown aggregation {name}")
    length = {"norm_length": int(plain[2])} if plain[2] else {}
    return {"aggregation": plain[1]} | length


# ---- losses


def check_loss(case: Case, near: Tolerance, inputs: Inputs) -> None:
    if case["loss"] == "kl_convex":
        return check_kl_convex(case, near, inputs)
    if case["loss"] not in LOSSES:
        raise Mismatch(f"unknown loss {case['loss']}")
    recipe, config = LOSSES[case["loss"]], dict(case["config"])
    name = recipe.loss if isinstance(recipe.loss, str) else recipe.loss(config)
    once(config, recipe.notes)
    batch = inputs.batch()
    estimate = kept = None
    if recipe.advantage:
        estimator, given = own_advantage(recipe, config, inputs)
        estimate = estimator(given)
        kept = estimator.kept(given) if hasattr(estimator, "kept") else None
        batch = replace(batch, advantage=estimate.advantage)
    corrections = []
    if recipe.correction:
        taken = once(config, list(recipe.correction_keys))
        fields = {"is_log_clamp": None} if "is_log_clamp" in recipe.correction_keys else {}
        fields |= {recipe.correction_keys[key]: value for key, value in taken.items()}
        corrections = [("golden", build("correction", recipe.correction, **fields))]
    anchor = penalty_of(once(config, PENALTY)) if recipe.penalty else None
    known = entry("loss", name).config.model_fields
    settings: Config = {"log_ratio_clamp": None, **recipe.fields} | aggregation(case)
    for key in [k for k in config if k in known or k in recipe.rename]:
        value = config.pop(key)
        if key in ("aggregation", "reduction"):
            raise Mismatch(f"unknown key {key}")
        value = recipe.words.get(value, value) if isinstance(value, str) else value
        targets = recipe.rename.get(key, key)
        settings |= dict.fromkeys((targets,) if isinstance(targets, str) else targets, value)
    nothing_left(config, "settings")
    loss = build("loss", name, **settings)
    objective = Objective(loss, corrections=corrections, anchor=anchor)
    compare_loss(case, near, inputs, Setup(objective, batch, estimate, kept))


def own_advantage(
    recipe: Recipe, config: Config, inputs: Inputs
) -> tuple[AdvantageEstimator[Any], AdvantageBatch]:
    """The advantage part of a loss that comes with its own baseline, and what it reads."""
    keys = {k: v for k, v in recipe.advantage_keys.items() if k in config}
    fields = {ours: config[theirs] for theirs, ours in keys.items()}
    loss_fields = entry("loss", str(recipe.loss)).config.model_fields
    once(config, [key for key in keys if key not in loss_fields])
    estimator = build("advantage", recipe.advantage, **fields)
    given = inputs.advantage_batch(inputs.rows("rewards"), inputs.get("token_rewards"))
    # A baseline of rewards alone also holds for a response without valid tokens.
    return estimator, replace(given, mask=torch.ones_like(given.mask))


def penalty_of(given: Config) -> Any:
    """The anchor of a KL term inside the loss."""
    if not given.get("beta"):
        return None
    name = given.get("kl_estimator", "k3")
    value, gradient = estimators(name)
    clamps = VERL_CLAMPS if name.startswith("low_var_kl") else Clamps()
    return build(
        "anchor",
        "base",
        beta=given["beta"],
        value_estimator=value,
        gradient_estimator=gradient,
        bias_correction=bool(given.get("kl_bias_correction")),
        log_ratio_clamp=clamps.log_ratio,
        value_clamp=clamps.value,
        skip_zero_advantage=False,
    )


VERL_CLAMPS = Clamps(20.0, 10.0)
"""What verl's name low_var_kl implies."""


def estimators(name: str) -> tuple[str, str]:
    """Value and gradient estimator of a golden name; "+" is another's value with k2's gradient."""
    plain = name.removesuffix("+")
    value = {"low_var_kl": "k3", "mse": "k2", "kl": "k1"}.get(plain, plain)
    return value, "k2" if name.endswith("+") else value


@dataclass(frozen=True)
class Setup:
    """A loss ready to be compared."""

    objective: Objective
    batch: LossBatch
    estimate: AdvantageOutput | None
    kept: Tensor | None


def compare_loss(case: Case, near: Tolerance, inputs: Inputs, s: Setup) -> None:
    expect, mask = dict(case["expect"]), inputs.mask
    leaf = inputs.get("logp").requires_grad_()
    entropy = inputs.get("entropy") if inputs.has("entropy") else torch.zeros_like(leaf)
    head = inputs.rows("head").requires_grad_()
    policy = PolicyTerms(logp=leaf, entropy=entropy, head=head)
    out = s.objective.output(policy, s.batch, s.objective.anchored_rows(s.batch))
    value = s.objective.reduce(out.terms, s.objective.counts(out.terms))
    leaves = (leaf, policy.head)
    gradient, of_head = torch.autograd.grad(value, leaves, materialize_grads=True)
    near.agree("loss", value, expect.pop("loss"))
    if "grad_head" in expect:
        near.agree("grad_head", of_head, expect.pop("grad_head"), gradient=True)
    expect.pop("aggregation")
    extra = dict(expect.pop("extra", {}))
    expected = torch.tensor(expect.pop("grad_logp"), dtype=torch.float64)
    for i, t in extra.pop("knife_edge_tokens", []):
        expected[i, t] = gradient[i, t].double()
    near.agree("grad_logp", gradient, expected, gradient=True)
    if not (gradient[~mask] == 0).all():
        raise Mismatch("a masked position has a gradient")
    if "per_token" in expect:
        shares = sum(torch.where(t.mask, t.weight * t.value, 0.0) for t in out.terms)
        per_token = torch.tensor(expect.pop("per_token"), dtype=torch.float64)
        near.agree("per_token", shares, torch.where(mask, per_token, 0.0), gradient=True)
    nothing_left(expect, "expectations")
    for name, number in extra.items():
        compare_extra(name, number, near, Found(out=out, setup=s, inputs=inputs))


# ---- extras


@dataclass(frozen=True)
class Found:
    """Where the extra numbers of a record are looked up."""

    out: LossOutput
    setup: Setup
    inputs: Inputs

    def metric(self, name: str) -> Tensor:
        found = self.out.metrics.get(f"policy/{name}")
        if found is None:
            found = self.out.metrics.get(f"correction/golden_{name}")
        if found is None:
            raise Mismatch(f"no metric gives the extra {name}")
        return found.detach()

    def total(self, name: str) -> Tensor:
        return self.metric(name)[self.inputs.mask].sum()

    def tokens(self, name: str) -> Tensor:
        return torch.where(self.inputs.mask, self.metric(name), 0.0)

    @property
    def estimate(self) -> AdvantageOutput:
        assert self.setup.estimate is not None
        return self.setup.estimate

    def pairs(self) -> list[list[int]]:
        pair, group = self.metric("pair"), self.inputs.group
        return [
            [int(((pair == sign) & (group == g)).nonzero()[0, 0]) for sign in (1, -1)]
            for g in dict.fromkeys(group.tolist())
            if ((pair != 0) & (group == g)).any()
        ]

    def row_advantage(self) -> Tensor:
        return self.estimate.advantage[:, 0]

    def kept(self) -> Tensor:
        """Rows that the advantage part did not drop."""
        assert self.setup.kept is not None
        return self.setup.kept

    def kept_rows(self) -> Tensor:
        return self.metric("weight")[:, 0]


EXTRAS: dict[str, Callable[[Found], Any]] = {
    **{
        name: lambda f, name=name: f.metric(name)[0]  # type: ignore[misc]
        for name in ("c_low", "c_high", "balance", "clip_low", "clip_high", "ess", "kl_coef", "cap")
    },
    **{
        name: lambda f, name=name: f.total(name)  # type: ignore[misc]
        for name in ("kept", "selected", "masked_tokens")
    },
    "iterations": lambda f: f.metric("search_steps")[0],
    "phi": lambda f: f.metric("phi"),
    "v_star": lambda f: f.inputs.rows("rewards") - f.row_advantage(),
    "pairs": Found.pairs,
    "kept_rows": Found.kept_rows,
    "keep": Found.kept,
    "advantages": Found.row_advantage,
}


def compare_extra(name: str, expected: Any, near: Tolerance, found: Found) -> None:
    if name == "weights":
        key = "weights" if "policy/weights" in found.out.metrics else "weight"
        mask = found.inputs.mask
        wanted = torch.where(mask, torch.tensor(expected, dtype=torch.float64), 0.0)
        return near.agree(name, found.tokens(key), wanted, gradient=True)
    if name == "dropped_per_group":
        group, kept = found.inputs.group, found.kept()
        counts = [int((~kept[group == int(g)]).sum()) for g in expected]
        return near.agree(name, counts, list(expected.values()))
    if name not in EXTRAS:
        raise Mismatch(f"unknown extra {name}")
    near.agree(name, EXTRAS[name](found), expected)


# ---- the other kinds


class Values(PolicyLoss):
    """Aggregates given values, for records that are no policy loss."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        return LossOutput(terms=[Term(name="policy", value=policy.logp, mask=batch.mask)])


def compare_values(
    case: Case, near: Tolerance, leaf: Tensor, value: Tensor, gradient_key: str
) -> None:
    """Per-token values [B, T], aggregated the way a loss's terms are."""
    expect, mask = dict(case["expect"]), torch.tensor(case["inputs"]["mask"]).bool()
    counted = case["config"].get("count_empty_rows", False)
    objective = Objective(Values(LossConfig(count_empty_rows=counted, **aggregation(case))))
    terms = [Term(name="policy", value=value, mask=mask)]
    total = objective.reduce(terms, objective.counts(terms))
    (gradient,) = torch.autograd.grad(total, leaf)
    expect.pop("aggregation")
    near.agree("loss", total, expect.pop("loss"))
    near.agree(gradient_key, gradient, expect.pop(gradient_key), gradient=True)
    if "per_token" in expect:
        per_token = torch.tensor(expect.pop("per_token"), dtype=torch.float64)
        near.agree("per_token", torch.where(mask, value, 0.0), torch.where(mask, per_token, 0.0))
    nothing_left(expect, "expectations")


def check_kl_convex(case: Case, near: Tolerance, inputs: Inputs) -> None:
    """KL-Convex at a given share of the base, as its first fall."""
    config = dict(case["config"])
    config.pop("count_empty_rows", None)
    share, estimator = config.pop("lambda"), config.pop("kl_estimator")
    anchor = build(
        "anchor",
        "kl_convex",
        beta=config.pop("beta"),
        start=0,
        interval=1,
        decrement=1 - share,
        floor=0.0,
        value_estimator=estimator,
        gradient_estimator=estimator,
        log_ratio_clamp=config.pop("log_ratio_clamp", None),
    )
    nothing_left(config, "settings")
    leaf = inputs.get("logp").requires_grad_()
    compare_values(case, near, leaf, anchor.penalty(leaf, inputs.batch(), 1), "grad_logp")


def check_kl(case: Case, near: Tolerance, inputs: Inputs) -> None:
    config = dict(case["config"])
    value, gradient = estimators(config.pop("estimator"))
    leaf = inputs.get("logp").requires_grad_()
    found = kl_penalty(
        leaf,
        inputs.get("ref_logp"),
        inputs.mask,
        value=value,  # type: ignore[arg-type]
        gradient=gradient,  # type: ignore[arg-type]
        clamps=Clamps(config.pop("input_clamp", None), config.pop("output_clamp", None)),
    )
    weighted, cap = config.pop("is_weight", False), config.pop("is_weight_cap", None)
    config.pop("count_empty_rows", None)
    nothing_left(config, "settings")
    if weighted:
        moved = masked_log_ratio(leaf, inputs.get("prox_logp"), inputs.mask)
        found = ratio_weighted(found, moved, cap=cap)
    compare_values(case, near, leaf, found, "grad_logp")


def check_value(case: Case, near: Tolerance, inputs: Inputs) -> None:
    config = dict(case["config"])
    clip = config.pop("clip_value")
    config.pop("count_empty_rows", None)
    nothing_left(config, "settings")
    leaf = inputs.get("values").requires_grad_()
    loss, _ = clipped_value_loss(leaf, inputs.get("old_values"), inputs.get("returns"), clip)
    compare_values(case, near, leaf, loss, "grad_values")


def check_advantage(case: Case, near: Tolerance, inputs: Inputs) -> None:
    config, expect = dict(case["config"]), dict(case["expect"])
    mask, reward = inputs.mask, inputs.rows("rewards")
    token_reward = inputs.get("token_rewards")
    coefficient = config.pop("kl_coef", None)
    if coefficient is not None:
        name = config.pop("estimator", "k1")
        value, _ = estimators(name)
        penalty = coefficient * kl_value(
            inputs.get("prox_logp"),
            inputs.get("ref_logp"),
            mask,
            value,  # type: ignore[arg-type]
            VERL_CLAMPS if name.startswith("low_var_kl") else Clamps(),
        )
        token_reward, reward = token_reward - penalty, reward - penalty.sum(-1)
    if case["loss"] == "adv/kl_in_reward":
        wanted = torch.tensor(expect.pop("token_rewards"), dtype=torch.float64)
        near.agree("token_rewards", token_reward[mask], wanted[mask])
    elif case["loss"] in ADVANTAGES:
        for key, only in ADVANTAGE_NOTES.items():
            if config.pop(key, only) != only:
                raise Mismatch(f"{key} is always {only} here")
        estimator = build("advantage", ADVANTAGES[case["loss"]], **config)
        config.clear()
        for number, visit in enumerate(case["inputs"].get("visits", ())):
            revisit(estimator, inputs, visit, number)
        estimator.begin(groups_of(inputs, reward, -1), no_score)
        out = estimator(inputs.advantage_batch(reward, token_reward))
        numbers = {
            "advantages": out.advantage,
            "returns": out.returns,
            "advantages_raw": out.returns - inputs.get("values"),
        }
        for key in [key for key in numbers if key in expect]:
            wanted = torch.tensor(expect.pop(key), dtype=torch.float64)
            near.agree(key, numbers[key][mask], wanted[mask], gradient=True)
    else:
        raise Mismatch(f"unknown advantage {case['loss']}")
    nothing_left(config, "settings")
    nothing_left(expect, "expectations")


def groups_of(inputs: Inputs, reward: Tensor, visit: int) -> list[Group]:
    """The groups of a batch, without the rows that have no valid token."""
    groups: dict[int, Group] = {}
    for row, name in enumerate(inputs.group.tolist()):
        ids = torch.zeros(1, dtype=torch.long)
        prompt = Prompt(prompt_id=str(name), text_or_messages="", ids=ids, columns={})
        group = groups.setdefault(name, Group(prompt=prompt, samples=[]))
        if not inputs.mask[row].any():
            continue
        sample = Sample(
            sample_id=visit * len(inputs.mask) + row,
            prompt_id=prompt.prompt_id,
            response_ids=torch.zeros(inputs.mask.shape[1], dtype=torch.long),
            loss_mask=inputs.mask[row],
            behavior_logp=inputs.get("behavior_logp")[row],
            policy_version=torch.zeros(inputs.mask.shape[1], dtype=torch.int32),
            reward=float(reward[row]),
            rewards={},
            finish_reason="stop",
            step=visit,
        )
        group.samples.append(sample)
    return list(groups.values())


def no_score(samples: Sequence[Sample], prompts: Sequence[Prompt]) -> dict[int, Score]:
    """Nothing is known of these responses any more, and what is counted now is not read."""
    return {s.sample_id: Score(logp=s.behavior_logp, entropy=0.0, advantage=0.0) for s in samples}


def revisit(
    estimator: AdvantageEstimator[Any], inputs: Inputs, visit: Mapping[str, Any], number: int
) -> None:
    """Let an estimator with a memory see an earlier batch with the same lengths.

    `logp` are the policy's log-probs of that batch's responses, and `logp_before` those it gives by
    then to the responses of the batch before.
    """
    tensors = {name: torch.tensor(value, dtype=inputs.dtype) for name, value in visit.items()}

    def score(samples: Sequence[Sample], prompts: Sequence[Prompt]) -> dict[int, Score]:
        rows = {s.sample_id: s.sample_id - (number - 1) * len(inputs.mask) for s in samples}
        return {
            key: Score(logp=tensors["logp_before"][row], entropy=0.0, advantage=0.0)
            for key, row in rows.items()
        }

    estimator.begin(groups_of(inputs, tensors["rewards"], number), score)
    batch = inputs.advantage_batch(tensors["rewards"], inputs.get("token_rewards"))
    estimator(replace(batch, prox_logp=tensors["logp"]))


def lr_factor(inputs: Inputs, rho_base: float) -> float:
    """The factor of the learning rate of an optimizer step on these responses."""
    rate, batch, logp = EssRate(rho_base, SINGLE), inputs.batch(), inputs.get("logp")
    rows = torch.arange(len(logp))
    terms = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    learner: Any = SimpleNamespace(optimizer=SimpleNamespace(param_groups=[{"lr": 1.0}]))
    with rate.applied(rate.ess(batch, rows, [(rows, terms)]), learner):
        return float(learner.optimizer.param_groups[0]["lr"])


def check_schedule(case: Case, near: Tolerance, inputs: Inputs) -> None:
    config, given = dict(case["config"]), case["inputs"]
    if case["loss"] == "schedule/kl_convex_lambda":
        found = [staircase(step, **config) for step in given["step"]]
    elif case["loss"] == "schedule/lr_ess":
        found = [lr_factor(inputs, **config)]
    elif case["loss"] == "schedule/adaptive_kl":
        coefficient, found = config.pop("kl_coef"), []
        for kl in given["current_kl"]:
            coefficient = adaptive_coefficient(coefficient, kl, given["n_steps"], **config)
            found.append(coefficient)
    else:
        raise Mismatch(f"unknown schedule {case['loss']}")
    near.agree("value", found, case["expect"]["value"])


KINDS = {
    "loss": check_loss,
    "kl": check_kl,
    "value": check_value,
    "advantage": check_advantage,
    "schedule": check_schedule,
}

# ---- the command


def lines_of(path: Path) -> Iterator[str]:
    """The records of a file, gzip or plain."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rt") if packed else path.open() as lines:
        yield from lines


def check(line: str, *, single: bool = False) -> tuple[str, str]:
    """The record's name, and why it failed ("" if it passed)."""
    name = "?"
    try:
        case = json.loads(line)
        name = case["loss"]
        if case["kind"] not in KINDS:
            raise Mismatch(f"unknown kind {case['kind']}")
        inputs = Inputs(case, torch.float32 if single else torch.float64)
        KINDS[case["kind"]](case, Tolerance(single), inputs)
    except Exception as error:
        label = case["case"] if name != "?" and "case" in case else "record"
        return name, f"{label}: {type(error).__name__}: {error}".splitlines()[0]
    return name, ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print passed and failed per name; 1 if any failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--float32", action="store_true", help="in float32, at its tolerance")
    parser.add_argument("--only", help="records of this name alone")
    options = parser.parse_args(arguments)
    passed, failed = Counter[str](), Counter[str]()
    reasons: list[str] = []
    for line in lines_of(options.file):
        if options.only and json.loads(line)["loss"] != options.only:
            continue
        name, reason = check(line, single=options.float32)
        (failed if reason else passed)[name] += 1
        reasons += [reason] if reason else []
    for name in sorted(passed | failed):
        print(f"{name:32} {passed[name]:4} passed {failed[name]:4} failed")
    for reason in reasons:
        print(f"FAILED {reason}")
    print(f"{passed.total()} passed, {failed.total()} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
