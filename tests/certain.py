"""User parts for whole runs in which something must happen, whatever the model writes.

They are named by path: `reward=[<path of this file>:half]`, `rollout=<path of this file>:Uneven`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from rlkit.batch import Request
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.hf import HFRollout

HERE = Path(__file__)
HALF, LADDER = (f"reward=[{HERE}:{name}]" for name in ("half", "ladder"))
FORM_AND_HALF = f"reward=[{HERE}:form,{HERE}:half]"
"""Neither says whether it marks correctness, so an evaluation counts the first. Training moves the
weights whatever it says."""
UNEVEN, HUMBLE = f"rollout={HERE}:Uneven", f"rollout={HERE}:Humble"


def half(prompts: Sequence[str]) -> list[float]:
    """Every second response of each prompt succeeds."""
    return [float(place % 2) for _, place in places(prompts)]


def ladder(prompts: Sequence[str]) -> list[float]:
    """Of the prompts of a call the first succeeds never, the second once, the third twice, ..."""
    return [float(place < successes) for successes, place in places(prompts)]


def form(completions: Sequence[str]) -> list[float]:
    """Whether a text has the form of running sums. The embedded model writes no other, and weights
    moved far enough from it no such one."""
    return [float(re.fullmatch(r"(\d\d,)+\d\d#\d\d", text) is not None) for text in completions]


def places(prompts: Sequence[str]) -> list[tuple[int, int]]:
    """For each response: its prompt's place among the prompts, its place among the prompt's."""
    order = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    seen: Counter[str] = Counter()
    found = []
    for prompt in prompts:
        found.append((order[prompt], seen[prompt]))
        seen[prompt] += 1
    return found


class Uneven(HFRollout):
    """Responses have SHORT tokens after a prompt with an even first number, else as many as may be.

    No token ends one.
    """

    SHORT: ClassVar[int] = 4

    def start(self, policy: Policy, seed: int) -> None:
        super().start(policy, seed)
        self.ends = self.ends[:0]

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        return super().generate(replace(call, requests=[self._cut(r) for r in call.requests]))

    def _cut(self, request: Request) -> Request:
        if int(str(request.prompt.text_or_messages)[0]) % 2:
            return request
        left = self.SHORT - len(request.prefix)
        return replace(request, max_tokens=min(left, self.config.room(request)))


class Humble(HFRollout):
    """Says of each token that it was less likely than it was, by half a nat."""

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        answers = super().generate(call)
        return [[replace(g, logp=g.logp - 0.5) for g in group] for group in answers]
