"""Win rates: an evaluation's responses against reference responses to the same problems.

    win rate of a problem = mean over pairs (y, y_ref) of [g(y) > g(y_ref)] + [g(y) = g(y_ref)] / 2
    margin of a problem   = mean over pairs of g(y) - g(y_ref)

g is the score of one reward, such as a gold reward model that the run does not train on. With ties
as halves a policy against its own responses has 1/2. Source: arXiv:2410.18252, which compares with
the data set's own responses under a gold reward model; its public code (mnoukhov/async_rlhf) counts
ties as lost, which reward models never have and verifiers mostly do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlkit.batch import Prompt
from rlkit.errors import UserError, suggest
from rlkit.evaluation.answers import Answered, score_texts
from rlkit.evaluation.figures import Values
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import Generation
from rlkit.stored.parquet import opened, read_rows
from rlkit.tasks.identity import row_ids

WIN_RATE, MARGIN = "win_rate", "win_margin"
SETTING = "eval.against.responses"
COLUMNS = ("prompt_id", "response", "greedy")
"""What a file of answers must have."""

Scores = Sequence[float | None]
Responses = Mapping[str, Sequence[str]]
"""Reference responses by the id of their problem."""


def compared(scores: Scores, references: Scores) -> tuple[float, float] | None:
    """The win rate and the margin of scores over references; None if there is nothing to compare.

    Scores that are None do not apply and are left out.
    """
    pairs = [(s, r) for s in scores if s is not None for r in references if r is not None]
    if not pairs:
        return None
    wins = [1.0 if s > r else 0.5 if s == r else 0.0 for s, r in pairs]
    return sum(wins) / len(pairs), sum(s - r for s, r in pairs) / len(pairs)


def responses_of(source: str, rows: Sequence[Mapping[str, Any]]) -> Responses:
    """The reference responses to an evaluation's rows, from a column or a file of answers.

    Raises UserError if a row has none.
    """
    ids = row_ids("eval", rows)
    if source.lower().endswith(".parquet"):
        found = from_file(Path(source).expanduser())
        lacking = [name for name in ids if name not in found]
        if lacking:
            raise UserError(
                f"{SETTING}={source} has no response to {len(lacking)} of {len(ids)} problems: it "
                "was written for other problems, for another task or with fewer eval.problems"
            )
        return {name: found[name] for name in ids}
    return {name: of_row(row, source) for name, row in zip(ids, rows, strict=True)}


def of_row(row: Mapping[str, Any], column: str) -> list[str]:
    """The reference responses in a column of a row."""
    value = row.get(column)
    texts = value if isinstance(value, list | tuple) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        known = sorted(set(row) - {"prompt"})
        raise UserError(
            f"{SETTING}={column}: a problem has no such column with a response as text."
            f"{suggest(column, known)} Columns: {', '.join(known) or 'none'}; or name a file of "
            "answers that ends in .parquet"
        )
    return [str(text) for text in texts]


def from_file(path: Path) -> dict[str, list[str]]:
    """The sampled responses of a file of answers by problem; the greedy ones if none is sampled."""
    if not path.is_file():
        raise UserError(f"{SETTING}={path} does not exist; `rlkit eval MODEL --out` writes one")
    with opened(path) as file:
        lacking = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if lacking:
        raise UserError(f"{SETTING}={path} is no file of answers: it has no column '{lacking[0]}'")
    rows = read_rows(path, COLUMNS)
    some = [row for row in rows if not row["greedy"]] or rows
    found: dict[str, list[str]] = {}
    for row in some:
        found.setdefault(row["prompt_id"], []).append(row["response"])
    return found


@dataclass(kw_only=True)
class Contest:
    """Compares an evaluation's responses with reference responses, by the score of one reward."""

    responses: Responses
    reward: str
    rewards: RewardSet
    """That reward alone."""
    tokenizer: Any
    scores: dict[str, Scores] = field(default_factory=dict, init=False)
    """Of the references, by the id of their problem; they are scored once."""

    def values(self, sampled: Sequence[Answered]) -> Values:
        """The win rate and the margin of each problem's samples."""
        self._score([each.prompt for each in sampled if each.prompt.prompt_id not in self.scores])
        pairs = [
            compared(each.components[self.reward], self.scores[each.prompt.prompt_id])
            for each in sampled
        ]
        found = [pair for pair in pairs if pair is not None]
        if not found:
            return {}
        return {WIN_RATE: [rate for rate, _ in found], MARGIN: [margin for _, margin in found]}

    def _score(self, prompts: Sequence[Prompt]) -> None:
        asked = [prompt for prompt in prompts for _ in self.responses[prompt.prompt_id]]
        if not asked:
            return
        end = self.tokenizer.eos_token or ""
        texts = [text for p in prompts for text in self.responses[p.prompt_id]]
        plain = [text.removesuffix(end) for text in texts]
        written = [self._generation(text) for text in plain]
        scores = score_texts(self.rewards, asked, written, plain).components[self.reward]
        start = 0
        for prompt in prompts:
            count = len(self.responses[prompt.prompt_id])
            self.scores[prompt.prompt_id] = scores[start : (start := start + count)]

    def _generation(self, text: str) -> Generation:
        """A text as a response that ended by itself."""
        ids = torch.tensor(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Generation(
            response_ids=ids.long(),
            logp=torch.zeros(len(ids)),
            policy_version=torch.zeros(len(ids), dtype=torch.int32),
            finish_reason="stop",
            extras={},
        )
