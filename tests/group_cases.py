"""What each of several processes computes in tests: `python -m tests.group_cases <folder>`.

A case is one update of a tiny policy on responses that every process has; its gradient, metrics and
scores go to `<folder>/rank-<n>`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch

import rlkit
from rlkit.batch import Group
from rlkit.config.run import RunConfig
from rlkit.distributed.launch import close_processes, open_processes
from rlkit.distributed.learner import Learner
from rlkit.distributed.processes import Processes
from rlkit.interfaces import State
from rlkit.models.head import Head
from rlkit.runs.checkpoint import save_tree
from rlkit.training.prepare import TrainBatch, prepare
from rlkit.training.references import Parts
from rlkit.training.update import Updater
from tests.steps import move, rollout, scorer
from tests.tiny import make_policy
from tests.training.objectives import AGGREGATIONS

HALF = "critic in bfloat16"
BUDGET = 40
"""Tokens of a micro-batch: few, so that every process has several."""


@cache
def responses() -> list[Group]:
    """Old and fresh groups, of responses of different lengths; no two processes' own."""
    policy = make_policy()
    old = rollout(policy, step=1, prompts=3)
    move(policy)
    return old + rollout(policy, step=2, prompts=3)


def lengths(groups: Sequence[Group]) -> list[int]:
    return [len(group.prompt.ids) + len(s.response_ids) for group in groups for s in group.samples]


def silenced(groups: Sequence[Group]) -> list[Group]:
    """The groups with no valid token in the rows that the second of two processes gets."""
    order = torch.argsort(torch.tensor(lengths(groups)), descending=True, stable=True)
    silent = set(order[1::2].tolist())
    number, out = 0, []
    for group in groups:
        samples = []
        for sample in group.samples:
            mask = sample.loss_mask & (number not in silent)
            samples.append(replace(sample, loss_mask=mask, extras={}))
            number += 1
        out.append(replace(group, samples=samples))
    return out


def few(groups: Sequence[Group]) -> list[Group]:
    """One group of one response: the second process has none."""
    return [replace(groups[0], samples=list(islice(groups[0].samples, 1)))]


CHOICES: dict[str, Callable[[Sequence[Group]], Sequence[Group]]] = {
    "all": list,
    "silent": silenced,
    "few": few,
}


def before_the_step(learner: Learner) -> list[torch.Tensor]:
    """Filled with the clipped gradient when the optimizer steps, which frees it."""
    found: list[torch.Tensor] = []
    step = learner.step

    def noted() -> None:
        found.extend(w.grad.flatten() for w in learner.masters.trained if w.grad is not None)
        step()

    learner.step = noted  # type: ignore[method-assign]
    return found


def updated(
    processes: Processes,
    loss: Any,
    groups: Sequence[Group],
    advantage: str = "group_norm",
    *,
    half: bool = False,
    late: bool = False,
    **settings: float,
) -> State:
    """The gradient, the metrics and the scores of one update."""
    policy = make_policy(processes=processes, half=half)
    if late:  # and as a run's forwards are
        policy.layout, policy.head = "shared_prefix", Head.of(policy.model)
    anchor = rlkit.build("anchor", "base", beta=0.1)
    anchor.rebase(policy)
    move(policy)
    parts = Parts(
        loss=loss, corrections=(), advantage=rlkit.build("advantage", advantage), anchor=anchor
    )
    train = {"micro_batch_tokens": BUDGET, "max_grad_norm": 1e9, "prompts_per_step": len(groups)}
    config = RunConfig.model_validate({"output_dir": ".", "train": train | settings})
    updater = Updater(config, policy, parts, 6)
    scored = scorer(policy, "rounded", updater, BUDGET, late=late)
    batch: TrainBatch = prepare(groups, 3, parts, scored)
    gradients = {"gradient": before_the_step(updater.learner)}
    if updater.critic is not None:
        gradients["critic"] = before_the_step(updater.critic.learner)
    if updater.head.learner is not None:
        gradients["head"] = before_the_step(updater.head.learner)
    done = updater.run(batch, 1, 3)
    metrics, scores = done.metrics, done.scores
    state: State = {
        **{name: torch.cat(found) for name, found in gradients.items()},
        "prox_logp": batch.loss.prox_logp,
        "anchor_logp": batch.loss.anchor_logp["base"],
        "values": batch.values,
        "metrics": {k: v for k, v in metrics.items() if not k.startswith("memory/")},
        "logp": [scores[key].logp for key in sorted(scores)],
        "weights": torch.cat([p.detach().flatten() for p in policy.model.parameters()]),
    }
    return state


def cases(processes: Processes) -> State:
    """Every loss as it is by default; every aggregation, on each choice of responses; a critic."""
    groups = responses()
    out = {
        f"loss {name}": updated(processes, rlkit.build("loss", name), groups)
        for name in rlkit.names("loss")
    }
    for choice, name, aggregation in product(CHOICES, ("remix", "bapo", "gspo"), AGGREGATIONS):
        loss = rlkit.build("loss", name, aggregation=aggregation)
        chosen = CHOICES[choice](groups)
        advantage = "reward" if choice == "few" else "group_norm"
        out[f"{choice} {name} {aggregation}"] = updated(processes, loss, chosen, advantage)
    out[HALF] = updated(processes, rlkit.build("loss", "ppo"), groups, "gae", half=True)
    for name in ("ppo", "bapo", "gspo"):
        loss = rlkit.build("loss", name)
        out[f"late {name}"] = updated(processes, loss, groups, late=True)
    out["lr_ess"] = updated(processes, rlkit.build("loss", "ppo"), groups, lr_ess=1.0)
    for choice in CHOICES:  # of a loss's own module, row by row and of all rows at once
        for scope in ("token", "minibatch"):
            own: Any = rlkit.build("loss", "flowrl")
            own.scope = scope
            advantage = "reward" if choice == "few" else "group_norm"
            out[f"head {choice} {scope}"] = updated(
                processes, own, CHOICES[choice](groups), advantage
            )
    out["critic"] = updated(processes, rlkit.build("loss", "ppo"), groups, "gae")
    return out


def main() -> None:
    torch.set_num_threads(1)
    processes = open_processes("cpu")
    save_tree(Path(sys.argv[1]) / f"rank-{processes.rank}", cases(processes))
    close_processes()


if __name__ == "__main__":
    main()
