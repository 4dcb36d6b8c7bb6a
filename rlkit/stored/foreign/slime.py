"""slime's `--save-debug-rollout-data`: one torch file per rollout, {"rollout_id", "samples"}."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from rlkit.errors import UserError
from rlkit.stored.foreign.record import Record, column, number, prompt_of

FINISHED = {"completed": "stop", "truncated": "length"}
"""Its states of a response that can be trained on. Aborted and failed ones are left out."""


def records(path: Path, reward: str | None) -> Iterator[Record]:
    """The responses of a file, with their tokens, loss masks and log-probs.

    `reward` names the entry that counts where rewards are dicts. The file is read as plain data;
    one that needs code to be read is refused, since such code could do anything.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # a pickle of another version
            pack: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds Python objects, which could run code when they are read; save samples "
            "as plain dicts, numbers and texts"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(pack, Mapping) or not isinstance(pack.get("samples"), list):
        raise UserError(f"{path} has no list 'samples'")
    for index, row in enumerate(pack["samples"], start=1):
        place = f"{path.name} sample {index}"
        if not isinstance(row, Mapping):
            raise UserError(f"{place} is no dict")
        if row.get("status", "completed") in FINISHED:
            yield _record(row, place, int(pack.get("rollout_id", 0)), reward)


def _record(row: Mapping[str, Any], place: str, step: int, reward: str | None) -> Record:
    tokens, length = column(row, "tokens", place), int(column(row, "response_length", place))
    if not 0 <= length <= len(tokens):
        raise UserError(f"{place}: response_length={length}, but it has {len(tokens)} tokens")
    start = len(tokens) - length
    value = column(row, "reward", place)
    rewards: dict[str, float] = {}
    if isinstance(value, Mapping):
        rewards = {str(key): number(v, str(key), place) for key, v in value.items()}
        if reward is None:
            raise UserError(
                f"{place} has several rewards; choose with --reward: {', '.join(rewards)}"
            )
        value = column(rewards, reward, place)
    mask, logp = row.get("loss_mask"), row.get("rollout_log_probs")
    for name, values in (("loss_mask", mask), ("rollout_log_probs", logp)):
        if values is not None and len(values) != length:
            raise UserError(f"{place}: {name} has {len(values)} entries for {length} tokens")
    prompt = prompt_of(row.get("prompt", ""), "prompt", place)
    group = row.get("group_index")
    return Record(
        place=place,
        group=(step, repr(prompt) if group is None else group),
        prompt=prompt,
        response=str(row.get("response", "")),
        reward=number(value, reward or "reward", place),
        rewards=rewards,
        columns={} if row.get("label") is None else {"answer": row["label"]},
        prompt_ids=tokens[:start],
        response_ids=tokens[start:],
        behavior_logp=logp,
        loss_mask=None if mask is None else [bool(m) for m in mask],
        finish_reason=FINISHED[row.get("status", "completed")],
        step=step,
    )
