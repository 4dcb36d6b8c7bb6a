"""Made-up groups of three responses, and a tokenizer of characters."""

from __future__ import annotations

from typing import Any

import torch

from rlkit.batch import Group, Prompt, Sample


class Characters:
    """One token per character."""

    def decode(self, ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        return "".join(chr(int(i)) for i in ids)


TOKENIZER: Any = Characters()


def group(first: int, *, source: str = "policy") -> Group:
    """Three responses of 1, 2 and 3 tokens, numbered from `first`."""
    prompt = Prompt(
        prompt_id=f"p{first}",
        text_or_messages=f"question {first}" if first % 2 else [{"role": "user", "content": "q"}],
        ids=torch.tensor([first, 1, 2]),
        columns={"answer": str(first), "levels": [1, {"easy": True}]},
    )
    samples = [
        Sample(
            sample_id=first + n,
            prompt_id=prompt.prompt_id,
            response_ids=torch.arange(n + 1) + 97,
            loss_mask=torch.arange(n + 1) != 1,
            behavior_logp=-torch.arange(n + 1) / 3 - 0.1,
            policy_version=torch.full((n + 1,), 4, dtype=torch.int32),
            reward=n / 2,
            rewards={"task": n / 2, "format": 1.0},
            finish_reason="length" if n == 2 else "stop",
            source=source,
            step=4,
            extras={"seed": 5.0, "kept": torch.arange(n + 1) / 7, "anchor_logp:base:1": 0.0},
        )
        for n in range(3)
    ]
    return Group(prompt=prompt, samples=samples)


def same(a: Group, b: Group) -> bool:
    """Whether two groups hold the same responses; their ids and ages may differ."""
    return a.prompt.text_or_messages == b.prompt.text_or_messages and all(
        torch.equal(x.response_ids, y.response_ids)
        and torch.equal(x.behavior_logp, y.behavior_logp)
        and torch.equal(x.loss_mask, y.loss_mask)
        and (x.reward, x.rewards, x.finish_reason) == (y.reward, y.rewards, y.finish_reason)
        for x, y in zip(a.samples, b.samples, strict=True)
    )
