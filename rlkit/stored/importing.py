"""From another tool's records to stored rollouts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlkit.batch import Group, Prompt, Sample
from rlkit.errors import UserError
from rlkit.stored.card import Card
from rlkit.stored.foreign import openai, slime, trinity, trl, verl
from rlkit.stored.foreign.record import Record
from rlkit.stored.parquet import write_table
from rlkit.stored.reencode import TextEncoder, encoded
from rlkit.stored.table import to_table
from rlkit.stored.write import DATA, ROW_GROUP

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SOURCES: dict[str, Callable[[Path, str | None], Iterator[Record]]] = {
    "openai": openai.records,
    "slime": slime.records,
    "trinity": trinity.records,
    "trl": trl.records,
    "verl": verl.records,
}
"""Whose files can be read."""


@dataclass
class Imported:
    """What an import found."""

    responses: int = 0
    groups: int = 0
    encoded: int = 0
    """Responses whose file has texts only."""
    changed: int = 0
    """Those of them whose text is another one when it is encoded and decoded again."""
    unknown_logp: int = 0
    """Responses without behavior log-probs."""

    def __str__(self) -> str:
        lines = [f"{self.responses} responses in {self.groups} groups"]
        if self.encoded:
            lines.append(
                f"{self.encoded} were encoded from text, {self.changed} of which do not decode to "
                "the same text"
            )
        if self.unknown_logp:
            lines.append(f"{self.unknown_logp} have no behavior log-probs")
        return "; ".join(lines)


def import_files(
    files: Sequence[Path],
    source: str,
    out: Path,
    encoder: TextEncoder,
    card: Card,
    reward: str | None = None,
) -> Imported:
    """Write the responses of another tool's files as stored rollouts.

    Each file becomes a shard. Raises UserError for a file that is not of that layout, naming the
    place, and if the folder exists; nothing is written then.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another folder")
    unfinished = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / DATA).mkdir(parents=True)
    found = Imported()
    try:
        for number, path in enumerate(files):
            groups = list(groups_of(SOURCES[source](path, reward), encoder, found))
            if not groups:
                raise UserError(f"{path} holds no responses")
            table = to_table(groups, encoder.tokenizer, about=asdict(card))
            write_table(
                table, unfinished / DATA / f"part-{number:05d}.parquet", row_group_size=ROW_GROUP
            )
        card.write(unfinished)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return found


def groups_of(records: Iterable[Record], encoder: TextEncoder, found: Imported) -> Iterator[Group]:
    """The records group by group, in the order in which the groups begin."""
    order: dict[object, int] = {}
    placed = [(order.setdefault(record.group, len(order)), record) for record in records]
    for _, members in groupby(sorted(placed, key=lambda each: each[0]), key=lambda each: each[0]):
        together = [record for _, record in members]
        first = together[0]
        ids = first.prompt_ids
        asked = first.prompt
        if not asked and ids is not None:
            asked = str(encoder.tokenizer.decode(list(ids)))
        prompt = Prompt(
            prompt_id=f"imported-{found.groups}",
            text_or_messages=asked,
            ids=torch.tensor(encoder.encode(first.prompt) if ids is None else ids),
            columns=first.columns,
        )
        samples = [_sample(record, prompt, encoder, found) for record in together]
        found.groups += 1
        yield Group(prompt=prompt, samples=samples)


def _sample(record: Record, prompt: Prompt, encoder: TextEncoder, found: Imported) -> Sample:
    ids = torch.tensor(_ids(record, encoder, found), dtype=torch.int64)
    finish_reason = record.finish_reason or ("stop" if _ends(ids, encoder) else "length")
    logp = _logp(record, len(ids))
    found.unknown_logp += logp is None
    mask = torch.ones(len(ids), dtype=torch.bool)
    if record.loss_mask is not None:
        mask = torch.tensor(record.loss_mask)
    if logp is not None and len(logp) < len(ids):  # the end, whose log-prob no file gives
        mask[len(logp) :] = False
        logp = torch.cat([logp, torch.zeros(len(ids) - len(logp))])
    found.responses += 1
    return Sample(
        sample_id=found.responses - 1,
        prompt_id=prompt.prompt_id,
        response_ids=ids,
        loss_mask=mask,
        behavior_logp=torch.full((len(ids),), torch.nan) if logp is None else logp,
        policy_version=torch.zeros(len(ids), dtype=torch.int32),
        reward=record.reward,
        rewards=dict(record.rewards),
        finish_reason=finish_reason,
        step=record.step,
    )


def _ids(record: Record, encoder: TextEncoder, found: Imported) -> list[int]:
    """A response's token ids: those of the file, those of its tokens, or its text's."""
    if record.response_ids is not None:
        return list(record.response_ids)
    tokenizer = encoder.tokenizer
    if record.tokens is not None:
        named = _named(record, tokenizer)
        end = encoder.response(record.response)[-1]
        done = record.finish_reason == "stop" and (not named or named[-1] != end)
        return [*named, end] if done else named
    ids, changed = encoded(record.response, record.finish_reason or "stop", encoder)
    found.encoded, found.changed = found.encoded + 1, found.changed + changed
    return ids


def _ends(ids: Tensor, encoder: TextEncoder) -> bool:
    """Whether a response ends with the end of a turn, or of the sequence."""
    ends: list[Any] = [encoder.response("")[-1], encoder.tokenizer.eos_token_id]
    return len(ids) > 0 and int(ids[-1]) in ends


def _named(record: Record, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of tokens that a file gives as texts.

    Raises UserError for a text that is not exactly one token: another tokenizer wrote the file.
    """
    ids = []
    for text in record.tokens or ():
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(found) != 1:
            raise UserError(
                f"{record.place}: {text!r} is not one token of this tokenizer; give the one of the "
                "model that sampled it (--tokenizer), or remove the logprobs to import texts alone"
            )
        ids.append(int(found[0]))
    return ids


def _logp(record: Record, length: int) -> Tensor | None:
    if record.behavior_logp is None:
        return None
    logp = torch.tensor(record.behavior_logp, dtype=torch.float32)
    if len(logp) not in (length, length - 1) or not (logp <= 0).all():
        raise UserError(
            f"{record.place}: {len(logp)} log-probs for {length} tokens, or one that is above 0 or "
            "not a number"
        )
    return logp
