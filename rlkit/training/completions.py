"""What a step leaves in the run folder of the responses it trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rlkit.batch import Group, Prompt, Sample
from rlkit.config.saving import CompletionsConfig
from rlkit.interfaces import PROMPT_IDS
from rlkit.ops import masked_mean
from rlkit.runs.token_file import token_file, write_tokens
from rlkit.training.pieces import pieces
from rlkit.training.prepare import TrainBatch
from rlkit.training.token_records import Seen

if TYPE_CHECKING:
    from rlkit.training.state import Session
    from rlkit.training.update import UpdateResult


class Steps(NamedTuple):
    """Where a run is."""

    step: int
    """The step of the stage, which ages are counted from."""
    done: int
    """That of the run, which files are named by."""


def is_written(config: CompletionsConfig, done: int) -> bool:
    """Whether the responses of the run's step `done` are written."""
    return config.every is not None and done % config.every == 0


def groups_kept(config: CompletionsConfig, done: int) -> int:
    """How many groups of the run's step `done` leave their tokens."""
    return config.tokens_per_step if is_written(config, done) else 0


def write_responses(
    session: Session,
    groups: Sequence[Group],
    batch: TrainBatch,
    result: UpdateResult,
    steps: Steps,
) -> Path | None:
    """Write a step's responses and tokens; returns the file of those skipped, if any were.

    Only the main process writes.
    """
    folder, config = session.run_folder, session.config.completions
    written, skipped = is_written(config, steps.done), sorted(set(result.skipped_rows))
    rows: list[dict[str, Any]] = []
    if folder.writes and (written or skipped):
        rows = completion_rows(groups, batch, steps.step, session.policy.tokenizer)
    if folder.writes and written:
        folder.write_completions(steps.done, rows[: config.max_per_step])
    if folder.writes and result.seen is not None:
        taken = batch.own.is_prox or session.parts.proximal is not None
        records = TokenRows(result.seen, set(skipped), session.policy.tokenizer, prox_taken=taken)
        write_tokens(token_file(folder.path, steps.done), list(records.of(groups, batch, steps)))
    if not skipped:
        return None
    return folder.write_nonfinite(steps.done, [rows[i] for i in skipped] if rows else [])


def completion_rows(
    groups: Sequence[Group], batch: TrainBatch, step: int, tokenizer: Any
) -> list[dict[str, Any]]:
    """One row per trained response: prompt, response, rewards, age, advantage."""
    return [
        {
            "prompt_id": prompt.prompt_id,
            "group": int(batch.loss.group[i]),
            "sample_id": sample.sample_id,
            "prompt": prompt.text_or_messages,
            "response": tokenizer.decode(sample.response_ids, skip_special_tokens=True),
            "tokens": len(sample.response_ids),
            **turns_of(sample, tokenizer),
            **facts(sample, batch, i, step),
            "rewards": dict(sample.rewards),
        }
        for i, (prompt, sample) in enumerate(pairs(groups))
    ]


def turns_of(sample: Sample, tokenizer: Any) -> dict[str, Any]:
    """The turns of a response in which an environment spoke, in order; nothing for others.

    They are the tokens that were sampled or shown, as text with special tokens. A prompt that the
    environment added to comes first.
    """
    added = sample.extras.get(PROMPT_IDS)
    if added is None and bool(sample.loss_mask.all()):
        return {}
    turns: list[dict[str, str]] = []
    if added is not None:
        turns.append({"role": "prompt", "text": tokenizer.decode(torch.as_tensor(added))})
    ends = (sample.loss_mask.diff().nonzero().squeeze(-1) + 1).tolist()
    for start, end in pairwise([0, *ends, len(sample.loss_mask)]):
        role = "policy" if bool(sample.loss_mask[start]) else "environment"
        turns.append({"role": role, "text": tokenizer.decode(sample.response_ids[start:end])})
    shown = int((~sample.loss_mask).sum())
    return {"observation_tokens": shown, "turns": turns}


def pairs(groups: Sequence[Group]) -> Iterator[tuple[Prompt, Sample]]:
    """Each response of the groups with its prompt, in the order of a batch's rows."""
    return ((group.prompt, sample) for group in groups for sample in group.samples)


def facts(sample: Sample, batch: TrainBatch, row: int, step: int) -> dict[str, Any]:
    """What is known of a response as a whole; `made_at` is the step that generated it."""
    loss = batch.loss
    return {
        "source": sample.source,
        "made_at": sample.step,
        "age": step - sample.step,
        "replayed": bool(loss.replayed[row]),
        "finish_reason": sample.finish_reason,
        "reward": sample.reward,
        "advantage": float(masked_mean(loss.advantage[row], loss.mask[row])),
    }


@dataclass(frozen=True)
class TokenRows:
    """Rows of completions/tokens-step-N.parquet."""

    seen: Seen
    skipped: set[int]
    """Rows of the batch whose update was not finite."""
    tokenizer: Any
    prox_taken: bool
    """Whether prox_logp is that of pi_k or of a reference, and not behavior_logp in its place."""

    def of(
        self, groups: Sequence[Group], batch: TrainBatch, steps: Steps
    ) -> Iterator[Mapping[str, Any]]:
        """One row per recorded response."""
        every = list(pairs(groups))
        for place, row in enumerate(self.seen.rows.tolist()):
            prompt, sample = every[row]
            yield {
                "step": steps.done,
                "row": row,
                "prompt_id": prompt.prompt_id,
                "group": int(batch.loss.group[row]),
                "sample_id": sample.sample_id,
                **facts(sample, batch, row, steps.step),
                "rewards": list(sample.rewards.items()),
                "skipped": row in self.skipped,
                "passes": len(self.seen.passes),
                **self._tokens(place, sample),
            }

    def _tokens(self, place: int, sample: Sample) -> dict[str, Any]:
        """The columns with a value per token; None = there are no such values."""
        seen, loss, ids = self.seen, self.seen.loss, sample.response_ids.tolist()

        def cut(values: Tensor) -> Any:
            return values[place, : len(ids)].float().numpy()

        def known(values: Tensor) -> Any:
            return None if values[place].isnan().any() else cut(values)

        columns = {
            "token_ids": ids,
            "pieces": pieces(self.tokenizer, ids),
            "loss_mask": sample.loss_mask.numpy(),
            "policy_version": sample.policy_version.numpy(),
            "advantages": cut(loss.advantage),
            "behavior_logp": None if loss.expert[place] else known(loss.behavior_logp),
            "prox_logp": cut(loss.prox_logp) if self.prox_taken else None,
        }
        for number, prefix in enumerate(("", "last_")[: len(seen.passes)]):
            found = seen.passes[number]
            columns |= {
                f"{prefix}logp": cut(found["logp"]),
                f"{prefix}ratio": known(seen.ratio(number)),
                f"{prefix}clipped": cut(found["clipped"]) > 0 if "clipped" in found else None,
            }
        return columns
