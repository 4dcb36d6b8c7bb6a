"""Sequences as a model reads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlkit.batch import Prompt, Sample
from rlkit.ops import pad

PROMPT_IDS = "prompt_ids"
"""The key of `Sample.extras` with the tokens of a prompt that an environment added to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Sequences as a model reads them: left-padded prompts and right-padded responses."""

    prompt_ids: Tensor
    """[B, P] int64, left-padded"""
    prompt_lengths: Tensor
    """[B] int64"""
    response_ids: Tensor
    """[B, T] int64, right-padded"""
    response_lengths: Tensor
    """[B] int64"""
    prompt: Tensor
    """[B] int64, numbers the distinct prompts: rows with the same number have the same tokens."""
    age: Tensor
    """[B] int64, how stale the weights were that sampled the response, as in `LossBatch`."""

    @staticmethod
    def of(prompts: list[Tensor], responses: list[Tensor], *, age: Tensor | None = None) -> Tokens:
        """Pad lists of [P_i] and [T_i] ids; every age is 0 if they are left out.

        Pad positions hold id 0 and are masked wherever they are read.
        """
        longest = max(p.shape[0] for p in prompts)
        flipped = pad([p.flip(0) for p in prompts], longest, 0)
        numbers: dict[bytes, int] = {}
        texts = [p.numpy().tobytes() for p in prompts]
        return Tokens(
            prompt_ids=flipped.flip(1),
            prompt_lengths=torch.tensor([p.shape[0] for p in prompts]),
            response_ids=pad(responses, max(1, *(r.shape[0] for r in responses)), 0),
            response_lengths=torch.tensor([r.shape[0] for r in responses]),
            prompt=torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts]),
            age=torch.zeros(len(prompts), dtype=torch.int64) if age is None else age,
        )

    @property
    def lengths(self) -> Tensor:
        """[B] prompt plus response tokens."""
        return self.prompt_lengths + self.response_lengths

    def rows(self, index: Tensor) -> Tokens:
        """The sequences at `index`, trimmed to their longest prompt and response."""
        prompt_lengths, response_lengths = self.prompt_lengths[index], self.response_lengths[index]
        prompt, response = int(prompt_lengths.max()), max(1, int(response_lengths.max()))
        return Tokens(
            prompt_ids=self.prompt_ids[index][:, self.prompt_ids.shape[1] - prompt :],
            prompt_lengths=prompt_lengths,
            response_ids=self.response_ids[index][:, :response],
            response_lengths=response_lengths,
            prompt=self.prompt[index],
            age=self.age[index],
        )

    def model_inputs(self, device: torch.device) -> dict[str, Tensor]:
        """input_ids, attention_mask and position_ids [B, P + T], on the device."""
        prompt = (
            torch.arange(self.prompt_ids.shape[1])
            >= self.prompt_ids.shape[1] - self.prompt_lengths[:, None]
        )
        response = torch.arange(self.response_ids.shape[1]) < self.response_lengths[:, None]
        mask = torch.cat([prompt, response], 1).long()
        return {
            "input_ids": torch.cat([self.prompt_ids, self.response_ids], 1).to(device),
            "attention_mask": mask.to(device),
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0).to(device),
        }


def asked_ids(prompt: Prompt, sample: Sample) -> Tensor:
    """The tokens that a response was sampled after, [P] int64.

    They are the prompt's own unless an environment added to it when the episode began.
    """
    own = sample.extras.get(PROMPT_IDS)
    return prompt.ids if own is None else torch.as_tensor(own, dtype=torch.int64)
