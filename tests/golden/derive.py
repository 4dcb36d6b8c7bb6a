"""Golden cases of parts that no other code gives numbers for: `python -m tests.golden.derive`.

It writes derived.jsonl.gz beside it, in the format of losses.jsonl.gz: inputs, and the value and
gradient by the formulas of formulas.py. Each record also has the numbers of a few mistakes
(`wrong`), which must not agree with the part.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden import formulas as f
from tests.golden.formulas import Batch, Floats

FILE = Path(__file__).with_name("derived.jsonl.gz")
B, T = 8, 12
Record = dict[str, Any]
NAMES = {
    **{name: name for name in ("logp", "mask", "entropy", "age", "replay_weight", "rewards")},
    **{"advantages": "advantage", "group": "group", "behavior_logp": "behavior"},
    **{"prox_logp": "prox", "ref_logp": "ref", "teacher_logp": "teacher"},
}
"""Inputs of a record, and the fields of a batch that they are."""
SCALES = {"small": 0.05, "medium": 0.4, "large": 1.5}


def example(seed: int, scale: str, *, experts: bool = False, empty: bool = False) -> Batch:
    """Random inputs, all policies different, holes in the mask and garbage where it is 0."""
    rng = np.random.default_rng(seed)

    def apart(x: Floats) -> Floats:
        near = np.round(x + SCALES[scale] * rng.standard_normal((B, T)), 6)
        return np.where(mask, near, np.round(x + 2 * rng.standard_normal((B, T)), 6))

    lengths = rng.integers(4, T + 1, B)
    lengths[2] = 1
    mask = (np.arange(T) < lengths[:, None]) & (rng.random((B, T)) > 0.15)
    mask[:, 0] = True
    if empty:
        mask[5] = False
    logp = np.round(-np.abs(rng.standard_normal((B, T))) - 0.05, 6)
    rewards = rng.integers(0, 3, B).astype(np.float64)
    group = np.arange(B) // 4
    advantage = rewards - rewards.reshape(2, 4).mean(-1).repeat(4)
    if empty:  # of the responses that are there
        advantage[4:] = rewards[4:] - rewards[4:][mask[4:].any(-1)].mean()
    return Batch(
        logp=logp,
        behavior=apart(logp),
        prox=apart(logp),
        ref=apart(logp),
        teacher=apart(logp),
        entropy=np.round(rng.random((B, T)) * 2, 6),
        mask=mask,
        advantage=advantage,
        rewards=rewards,
        group=group,
        age=rng.integers(0, 5, B),
        expert=np.arange(B) % 4 == 1 if experts else np.zeros(B, bool),
        replay_weight=np.where(np.arange(B) % 2, np.round(rng.random(B), 6), 0.0),
    )


def inputs_of(b: Batch) -> Record:
    """A record's inputs."""
    found = {name: getattr(b, key).astype(float).tolist() for name, key in NAMES.items()}
    found["mask"] = b.mask.astype(int).tolist()
    found |= {"group": b.group.tolist(), "age": b.age.tolist()}
    found["expert_mask"] = (b.expert[:, None] & b.mask).astype(int).tolist()
    return found


def reduced(b: Batch, aggregation: str, found: Sequence[Any]) -> Record:
    """What is expected of values [B, T] or [B] and their derivatives [B, T]."""
    value, slope = found[0], found[1]
    mask = found[2] if len(found) > 2 else b.mask
    slope, lengths = slope * mask, mask.sum(-1)
    live = lengths > 0
    if value.ndim == 1:
        share = np.where(live, 1 / live.sum(), 0.0)
        loss = (value * share).sum()
        gradient = slope * share[:, None]
    elif aggregation == "token-mean":
        loss, gradient = (value * mask).sum() / mask.sum(), slope / mask.sum()
    else:
        share = np.where(live, 1 / (np.maximum(lengths, 1) * live.sum()), 0.0)[:, None]
        loss, gradient = (value * mask * share).sum(), slope * share
    return {"loss": float(loss), "aggregation": aggregation, "grad_logp": gradient.tolist()}


def record(
    case: str, formula: Callable[..., Any], b: Batch, config: Record, wrong: Sequence[str], how: str
) -> Record:
    """A loss's record."""
    return {
        "case": case,
        "loss": case.partition("/")[0],
        "kind": "loss",
        "config": config,
        "inputs": inputs_of(b),
        "expect": reduced(b, how, formula(b, config)),
        "oracle": "numpy formula, gradient by hand",
        "oracle_kind": "closed",
        "wrong": [
            {"why": why, "expect": reduced(b, how, formula(b, config, why))} for why in wrong
        ],
    }


TOKEN, ROWS = "token-mean", "seq-mean-token-mean"
PREFIX = ("own ratio", "fixed window", "gradient through the prefix")
WINDOW: Mapping[str, Any] = {"clip_low": 0.3, "clip_high": 0.4, "dual_clip": 0.5, "power": 0.5}
A3PO = ("share of the policy and of behavior swapped", "prox not detached")
TEACHER = ("behavior as student", "no weight", "weight cut to the window")
IS = {"is_min": 0.5, "is_max": 2.0}


def losses() -> Iterator[tuple[str, Any, Batch, Record, Sequence[str], str]]:
    """Name, formula, inputs, settings, mistakes and aggregation of each case."""
    small = {"clip_low": 0.025, "clip_high": 0.05, "dual_clip": 0.05, "power": 0.5}
    yield "ctpo/paper", f.ctpo, example(1, "small"), small, (PREFIX[0], PREFIX[2]), TOKEN
    yield "ctpo/medium", f.ctpo, example(2, "medium"), dict(WINDOW), PREFIX, ROWS
    steep = {**WINDOW, "power": 1.0, "dual_clip": None}
    yield "ctpo/steep", f.ctpo, example(3, "large"), steep, PREFIX, TOKEN
    mean = {**WINDOW, "power": -0.5, "mean": True}
    yield "ctpo/mean", f.ctpo, example(4, "medium"), mean, PREFIX, TOKEN
    for sign in ("positive", "negative"):
        for quantile in (0.8, None):
            how = {"inverted": sign, "entropy_quantile": quantile}
            name = f"aspo/{sign}{'-quantile' if quantile else ''}"
            wrong = ("other sign", "hard bound")[: 2 if sign == "positive" else 1]
            yield name, f.aspo, example(5, "large"), how, wrong, TOKEN
    shown = example(6, "medium", experts=True)
    explore = ("old policy alone", "gradient through the exploration")
    yield "rl_plus/paper", f.rl_plus, shown, {"explore": 0.5}, explore, TOKEN
    yield "rl_plus/steeper", f.rl_plus, shown, {"explore": 2.0}, explore, ROWS
    yield "trapo/paper", f.trapo, shown, {"floor": 0.1}, ("floor not detached", "likelihood"), TOKEN
    yield "trapo/high", f.trapo, shown, {"floor": 0.6}, ("floor not detached", "likelihood"), ROWS
    for decay in ("log", "linear"):
        by_age = {"interpolation": decay}
        yield f"a3po/{decay}", f.a3po, example(7, "medium"), by_age, A3PO, TOKEN
    apart = ("sign of the divergence", "no partition function")
    paper = {"beta": 0.05, "ratio_max": None}
    yield "tba/paper", f.tba, example(8, "medium", empty=True), paper, apart, ROWS
    newer = {"beta": 0.3, "ratio_max": 2.0}
    wrong = (*apart, "a cut token learns")
    yield "tba/newer", f.tba, example(9, "large"), newer, wrong, ROWS
    for beta in (0.1, 0.5):
        name, wrong = f"qrpo/beta{beta}", ("strictly below", "no logarithm of beta")
        yield name, f.qrpo, example(10, "medium"), {"beta": beta}, wrong, ROWS
    for estimator, delta in (("k2", 0.28), ("k3", 0.32)):
        config = {"trm_estimator": estimator, "trm_delta": delta}
        wrong = ("mean", "denominator kept")
        yield f"trm/{estimator}", f.trm, example(11, "medium"), config, wrong, TOKEN
    veto = {"veto_threshold": 0.3}
    yield (
        *("mu_grpo_veto/medium", f.veto, example(12, "large"), veto),
        *(("the token too", "positive too"), TOKEN),
    )
    weights = ("normalized", "nothing for fresh ones")
    yield "replay_weight/half", f.replay_weight, example(13, "medium"), {}, weights, TOKEN
    yield "mopd/window", f.mopd, example(14, "medium"), dict(IS), TEACHER, TOKEN


def records() -> Iterator[Record]:
    """Every record."""
    for case, formula, b, config, wrong, how in losses():
        yield record(case, formula, b, config, wrong, how)
    b = example(15, "medium")
    plain = {"loss": "adv/mopd", "kind": "advantage", "config": dict(IS), "oracle_kind": "closed"}
    yield {
        "case": "adv/mopd/window",
        **plain,
        "inputs": inputs_of(b),
        "expect": {"advantages": f.mopd_advantage(b, IS).tolist()},
        "wrong": [
            {"why": why, "expect": {"advantages": f.mopd_advantage(b, IS, why).tolist()}}
            for why in TEACHER
        ],
    }
    for base in (1.0, 0.5):
        b = example(16, "large", experts=base == 1.0, empty=True)
        yield {
            "case": f"schedule/lr_ess/{base}",
            **{"loss": "schedule/lr_ess", "kind": "schedule", "config": {"rho_base": base}},
            "oracle_kind": "closed",
            "inputs": inputs_of(b),
            "expect": {"value": [f.lr_factor(b, base)]},
            "wrong": [
                {"why": why, "expect": {"value": [f.lr_factor(b, base, why)]}}
                for why in ("ratios of tokens", "no root")
            ],
        }


def main() -> None:
    """Write the file."""
    with FILE.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for each in records():
            file.write((json.dumps(each) + "\n").encode())


if __name__ == "__main__":
    main()
