"""Made-up groups of three responses, a tokenizer of characters and its encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from rlkit.batch import Group, Prompt, Sample


class Characters:
    """One token per character."""

    def decode(self, ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        return "".join(chr(int(i)) for i in ids if i)


TOKENIZER: Any = Characters()


class CharacterEncoder:
    """Texts as character codes, responses with a 0 behind; upper case becomes lower case."""

    tokenizer = TOKENIZER

    def asked(self, prompt: Any) -> Any:
        return prompt

    def encode(self, prompt: Any) -> list[int]:
        text = prompt if isinstance(prompt, str) else "".join(m["content"] for m in prompt)
        return [ord(c) for c in text]

    def response(self, text: str) -> list[int]:
        return [*(ord(c) for c in text.lower()), 0]


ENCODER = CharacterEncoder()


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


def without_logp(made: Group, *places: int) -> Group:
    """The group, some of whose responses have unknown log-probs."""
    samples = [
        replace(s, behavior_logp=torch.full_like(s.behavior_logp, torch.nan)) if n in places else s
        for n, s in enumerate(made.samples)
    ]
    return replace(made, samples=samples)


def all_own(made: Group) -> Group:
    """The group, whose every token is the policy's own."""
    masks = [torch.ones_like(s.loss_mask) for s in made.samples]
    pairs = zip(made.samples, masks, strict=True)
    return replace(made, samples=[replace(s, loss_mask=mask) for s, mask in pairs])


def same(a: Group, b: Group) -> bool:
    """Whether two groups hold the same responses; their ids and ages may differ."""
    return a.prompt.text_or_messages == b.prompt.text_or_messages and all(
        torch.equal(x.response_ids, y.response_ids)
        and torch.equal(x.behavior_logp, y.behavior_logp)
        and torch.equal(x.loss_mask, y.loss_mask)
        and (x.reward, x.rewards, x.finish_reason) == (y.reward, y.rewards, y.finish_reason)
        for x, y in zip(a.samples, b.samples, strict=True)
    )
