"""How the rows of a batch are split among ranks and into micro-batches of so many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from rlkit.distributed.processes import Processes
from rlkit.interfaces import Tokens
from rlkit.models.rows import Layout, inputs_of, padded_width


def split(tokens: Tokens, budget: int, processes: Processes, layout: Layout) -> list[Tensor]:
    """This rank's micro-batches of a batch in a layout: [b] int64 rows each.

    Every rank has equally many; the last ones may be empty.
    """
    if layout == "padded":
        shares = dealt(tokens.lengths, processes.world_size)
        prompts, responses = tokens.prompt_lengths, tokens.response_lengths
        splits = [
            [share[p] for p in split_rows(prompts[share], responses[share], budget)]
            for share in shares
        ]
    else:
        weights = Weights.of(tokens, shared=layout == "shared_prefix")
        splits = [weights.split(share, budget) for share in weights.shares(processes.world_size)]
    own = splits[processes.rank]
    return own + [torch.zeros(0, dtype=torch.int64)] * (max(map(len, splits)) - len(own))


def dealt(lengths: Tensor, world_size: int) -> list[Tensor]:
    """Every world_size-th row for each rank, the longest first."""
    order = torch.argsort(lengths, descending=True, stable=True)
    return [order[rank::world_size] for rank in range(world_size)]


def split_rows(prompts: Tensor, responses: Tensor, budget: int) -> list[Tensor]:
    """Partition rows, sorted by length, into micro-batches of at most `budget` tokens, padded.

    A prompt is padded to the longest prompt and a response to the longest response, see
    `padded_width`. One row always fits. Lengths [B] in tokens; returns [b] int64 row indices.
    """
    order = torch.argsort(prompts + responses, descending=True, stable=True)
    splits: list[list[int]] = []
    prompt = response = 0
    for row in order.tolist():
        longer = max(prompt, int(prompts[row])), max(response, int(responses[row]))
        if splits and (len(splits[-1]) + 1) * padded_width(*longer) <= budget:
            splits[-1].append(row)
            prompt, response = longer
        else:
            splits.append([row])
            prompt, response = int(prompts[row]), int(responses[row])
    return [torch.tensor(part) for part in splits]


class Weights:
    """Rows of one packed row, group by group, and the tokens that each adds."""

    def __init__(self, prompt: Sequence[int], own: Sequence[int], first: Sequence[int]) -> None:
        self.prompt = prompt
        """The prompt of each row; rows with the same one share it."""
        self.own = own
        """Tokens of each row besides its prompt."""
        self.first = first
        """Tokens of its prompt, which the first row of a micro-batch adds."""

    @staticmethod
    def of(tokens: Tokens, *, shared: bool) -> Weights:
        """Of a batch whose rows share their prompts, or have a copy each."""
        prompt = tokens.prompt if shared else torch.arange(len(tokens.prompt))
        own, first = inputs_of(tokens), tokens.prompt_lengths
        return Weights(prompt.tolist(), own.tolist(), first.tolist())

    def shares(self, world_size: int) -> list[list[int]]:
        """Each rank's rows: neighbors, the most costly group first, so that few groups are cut."""
        total: dict[int, int] = {}
        for prompt, own, first in zip(self.prompt, self.own, self.first, strict=True):
            total[prompt] = total.get(prompt, first) + own
        order = sorted(
            range(len(self.prompt)),
            key=lambda row: (-total[self.prompt[row]], self.prompt[row], -self.own[row], row),
        )
        shares: list[list[int]] = [[] for _ in range(world_size)]
        cost, before = sum(total.values()), 0.0
        for _, rows in groupby(order, key=self.prompt.__getitem__):
            members = list(rows)
            each = self.first[members[0]] / len(members)
            for row in members:
                middle = before + (each + self.own[row]) / 2
                shares[min(int(world_size * middle / max(1, cost)), world_size - 1)].append(row)
                before += each + self.own[row]
        return shares

    def split(self, rows: Sequence[int], budget: int) -> list[Tensor]:
        """Cut rows into micro-batches; a group is cut only if it does not fit in one."""
        splits: list[list[int]] = []
        used = budget
        for _, together in groupby(rows, key=self.prompt.__getitem__):
            group = list(together)
            first = self.first[group[0]]
            whole = first + sum(self.own[row] for row in group)
            starts = not splits or used + whole > budget
            for row in group:
                if starts or used + self.own[row] > budget:
                    splits.append([])
                    used = first
                elif row == group[0]:
                    used += first
                splits[-1].append(row)
                used += self.own[row]
                starts = False
        return [torch.tensor(part) for part in splits]
