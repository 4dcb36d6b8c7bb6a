"""Golden cases of FlowRL, HPT and SPO by numpy, without autograd: `python -m tests.golden.heads`.

It writes heads.jsonl beside it, in the format of losses.jsonl.gz, with one more input `head` [B],
what the loss's module makes of each prompt, and `grad_head`, the gradient in it. `wrong` are the
numbers of mistakes that are easily made; the parts must not agree with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("heads.jsonl")
B, T = 6, 5
Floats = NDArray[np.float64]
Record = dict[str, Any]


def example(seed: int, spread: float) -> dict[str, Any]:
    """Three policies, two groups of three, a hole, an empty row, garbage where masked."""
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < np.array([5, 3, 1, 4, 0, 2])[:, None]
    mask[0, 2] = False
    logp = np.round(-np.abs(rng.standard_normal((B, T))) - 0.05, 6)

    def apart() -> Floats:
        noise = rng.standard_normal((B, T))
        return np.round(logp + np.where(mask, spread, 3.0) * noise, 6)

    return {
        "logp": logp,
        "prox_logp": apart(),
        "ref_logp": apart(),
        "mask": mask,
        "advantages": np.array([1.0, -0.5, -0.5, 0.8, -1.0, 0.2]),
        "rewards": np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0]),
        "group": np.array([0, 0, 0, 1, 1, 1]),
        "head": np.round(rng.standard_normal(B), 6),
    }


def flowrl(x: dict[str, Any], beta: float, cap: float, wrong: str = "") -> Record:
    """w (z + m - beta A)^2 averaged over the rows with tokens; m and w by each row's own sums."""
    mask, z = x["mask"], x["head"] * (wrong != "no log Z")
    lengths = np.maximum(mask.sum(-1), 1)
    moved = ((x["logp"] - x["ref_logp"]) * mask).sum(-1)
    if wrong != "sum over tokens":
        moved = moved / lengths
    error = z + moved - beta * x["advantages"]
    drift = ((x["logp"] - x["prox_logp"]) * mask).sum(-1)
    if wrong == "mean ratio":
        drift = drift / lengths
    weight = np.exp(drift) if wrong == "no cap" else np.minimum(np.exp(drift), cap)
    share = mask.any(-1) / mask.any(-1).sum()
    of_z = 2 * weight * error * share
    gradient = (of_z / lengths)[:, None] * mask
    if wrong == "weight not detached":
        gradient = gradient + (weight * error**2 * share)[:, None] * mask
    return {
        "loss": float((weight * error**2 * share).sum()),
        "aggregation": "seq-mean-token-mean",
        "grad_logp": gradient.tolist(),
        "grad_head": of_z.tolist(),
    }


def hpt(x: dict[str, Any], weight: float, wrong: str = "") -> Record:
    """PPO on own tokens and -log p on shown ones, each averaged over its own tokens."""
    shown = x["mask"] & x["expert"][:, None]
    own = x["mask"] & ~x["expert"][:, None]
    a = np.broadcast_to(x["advantages"][:, None], own.shape)
    ratio = np.exp((x["logp"] - x["prox_logp"]) * own)
    free = np.where(a > 0, ratio <= 1.2, ratio >= 0.8)
    value = -a * np.where(free, ratio, np.where(a > 0, 1.2, 0.8))
    n_own, n_shown = own.sum(), shown.sum()
    if wrong == "averaged together":
        n_own = n_shown = x["mask"].sum()
    taught = -x["logp"] * (a if wrong == "advantage read" else 1.0)
    slope = -(a if wrong == "advantage read" else np.ones_like(a))
    return {
        "loss": float((value * own).sum() / n_own + weight * (taught * shown).sum() / n_shown),
        "aggregation": "token-mean",
        "grad_logp": (
            np.where(own & free, value, 0.0) / n_own + weight * slope * shown / n_shown
        ).tolist(),
    }


def spo(x: dict[str, Any], wrong: str = "") -> Record:
    """Every prompt is new: R - 1/2 over the batch's spread, of the rows with tokens or not."""
    return normalized(x["rewards"], x["mask"], wrong)


def normalized(d: Floats, mask: NDArray[np.bool_], wrong: str = "") -> Record:
    """(d - mean) / std over the batch, at every valid token."""
    d = d - (0.0 if wrong == "not centred" else d.mean())
    spread = d.std(ddof=0 if wrong == "biased" else 1) + 1e-8
    return {"advantages": ((d / spread)[:, None] * mask).tolist()}


def visits(seed: int) -> list[dict[str, Floats]]:
    """Two earlier visits of six prompts: rewards, log-probs, and those of the responses before.

    The policy has moved by less than rho_max allows, between the bounds, or beyond rho_min.
    """
    rng = np.random.default_rng(seed)
    first = np.round(-np.abs(rng.standard_normal((B, T))) - 0.05, 6)
    moved = np.array([0.002, 0.006, 0.008, 0.01, 0.3, 0.05])[:, None]
    signs = np.where(np.arange(T) % 2, -1.0, 1.0)
    return [
        {"rewards": np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0]), "logp": first, "logp_before": first},
        {
            "rewards": np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.5]),
            "logp": np.round(-np.abs(rng.standard_normal((B, T))) - 0.05, 6),
            "logp_before": np.round(first + moved * signs, 6),
        },
    ]


def spo_again(x: dict[str, Any], earlier: list[dict[str, Floats]], wrong: str = "") -> Record:
    """The third visit: d = R - alpha / (alpha + beta), of prompts that have a response a visit."""
    c = {"half_life": 0.06, "rho_min": 0.875, "rho_max": 0.96}
    mask, alpha, beta = x["mask"], np.full(B, 0.5), np.full(B, 0.5)
    live, lengths = mask.any(-1), np.maximum(mask.sum(-1), 1)
    before = earlier[0]["logp"]
    for visit in earlier:
        apart = visit["logp_before"] - before
        if wrong != "drift with its sign":
            apart = np.abs(apart)
        drift = (apart * (1.0 if wrong == "drift of all tokens" else mask)).sum(-1) / lengths
        rho = np.clip(2.0 ** (-drift / c["half_life"]), c["rho_min"], c["rho_max"])
        if wrong == "nothing forgotten":
            rho = np.ones(B)
        alpha = np.where(live, rho * alpha + visit["rewards"], alpha)
        beta = np.where(live, rho * beta + 1 - visit["rewards"], beta)
        before = visit["logp"]
    if wrong == "counted before it is read":
        alpha, beta = alpha + x["rewards"] * live, beta + (1 - x["rewards"]) * live
    return normalized(x["rewards"] - alpha / (alpha + beta), mask)


def record(case: str, kind: str, x: dict[str, Any], config: Record, expect: Record) -> Record:
    inputs = {k: np.asarray(v).astype(float).tolist() for k, v in x.items() if k != "expert"}
    inputs |= {"mask": x["mask"].astype(int).tolist(), "group": x["group"].tolist()}
    if "expert" in x:
        inputs["expert_mask"] = (x["mask"] & x["expert"][:, None]).astype(int).tolist()
    name = case.rpartition("/")[0]
    oracle = {"oracle": "numpy formula, gradient by hand", "oracle_kind": "closed"}
    fixed = {"case": case, "loss": name, "kind": kind, "config": config, "inputs": inputs}
    return fixed | {"expect": expect} | oracle


def records() -> Iterator[Record]:
    """Every record, with the numbers of mistakes."""
    mistakes = ("no log Z", "sum over tokens", "weight not detached")
    for case, spread, beta, cap, more in (
        ("flowrl/paper", 0.4, 15.0, 10.0, ("mean ratio",)),
        ("flowrl/capped", 1.5, 2.0, 1.5, ("no cap",)),
    ):
        x, config = example(1, spread), {"beta": beta, "ratio_max": cap}
        made = record(case, "loss", x, config, flowrl(x, beta, cap))
        wrong = [{"why": w, "expect": flowrl(x, beta, cap, w)} for w in (*mistakes, *more)]
        yield made | {"wrong": wrong}
    for weight in (1.0, 0.3):
        x = example(2, 0.4) | {"expert": np.arange(B) % 3 == 1}
        made = record(f"hpt/weight{weight}", "loss", x, {"sft_weight": weight}, hpt(x, weight))
        wrong = [
            {"why": w, "expect": hpt(x, weight, w)} for w in ("averaged together", "advantage read")
        ]
        yield made | {"wrong": wrong}
    x = example(3, 0.4)
    made = record("adv/spo/new", "advantage", x, {}, spo(x))
    wrong = [{"why": w, "expect": spo(x, w)} for w in ("biased", "not centred")]
    yield made | {"wrong": wrong}
    x, earlier = example(4, 0.4) | {"group": np.arange(B)}, visits(5)
    made = record("adv/spo/again", "advantage", x, {}, spo_again(x, earlier))
    made["inputs"]["visits"] = [{k: v.tolist() for k, v in each.items()} for each in earlier]
    mistakes = ("drift with its sign", "drift of all tokens", "nothing forgotten")
    wrong = [
        {"why": w, "expect": spo_again(x, earlier, w)}
        for w in (*mistakes, "counted before it is read")
    ]
    yield made | {"wrong": wrong}


def main() -> None:
    """Write the file."""
    FILE.write_text("".join(json.dumps(each) + "\n" for each in records()))


if __name__ == "__main__":
    main()
