"""From requests to answers with marks: generate, decode, score."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.batch import Prompt
from rlkit.errors import UserError
from rlkit.rewards.environment import COLUMN, HANDLES
from rlkit.rewards.judges import FULL_MARKS, Judges
from rlkit.rewards.scoring import FAILURES, RewardResult, RewardSet
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A problem with its n responses; every list has n entries."""

    prompt: Prompt
    texts: Sequence[str]
    """Without special tokens."""
    lengths: Sequence[int]
    """In tokens of the policy, with the one that ends a response."""
    finish_reasons: Sequence[str]
    totals: Sequence[float | None]
    """The weighted sum of the rewards; None if none applies."""
    components: Mapping[str, Sequence[float | None]]
    """Each reward by name, unweighted; None where it does not apply."""
    right: Sequence[bool]
    """Whether the judging reward gives full marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The marked responses to several problems."""

    each: Sequence[Answered]
    """In order of the problems."""
    counts: Mapping[str, int]
    """What happened to rewards over them ("timeouts", "errors", "lost", "unparsed")."""


NO_ANSWERS = Answers(each=(), counts={})


def answer(
    engine: RolloutEngine[Any],
    rewards: RewardSet,
    tokenizer: Any,
    call: GenerationCall,
    judges: Judges,
) -> Answers:
    """The marked responses to each request of `call.part`, in order.

    The call says how to sample (`greedy`, `sampling`), which draws to use (`stream`, whose name
    begins with "eval") and whom to tell how far it is. A response is right if its problem's judge
    gives it 1 or more. With multiple processes every rank must call it, and all get every answer.
    """
    groups = engine.generate(call)
    flat = [generation for group in groups for generation in group]
    prompts = [request.prompt for request in call.own]
    texts = decoded(tokenizer, flat)
    each = [prompt for prompt, group in zip(prompts, groups, strict=True) for _ in group]
    marks = score_texts(rewards, each, flat, texts)
    values = [marks.components[judges.of(p.columns)][i] for i, p in enumerate(each)]
    right = [value is not None and value >= FULL_MARKS for value in values]
    out, start = [], 0
    for prompt, group in zip(prompts, groups, strict=True):
        own = slice(start, start := start + len(group))
        out.append(
            Answered(
                prompt=prompt,
                texts=texts[own],
                lengths=[generation.own_tokens for generation in group],
                finish_reasons=[generation.finish_reason for generation in group],
                totals=marks.total[own],
                components={name: values[own] for name, values in marks.components.items()},
                right=right[own],
            )
        )
    return Answers(each=out, counts=marks.counts)


def failures(counts: Mapping[str, int], responses: int) -> str | None:
    """What is told if rewards failed over some of so many responses; None if none did."""
    told = ", ".join(f"{counts[event]} {event}" for event in FAILURES if counts.get(event))
    if not told:
        return None
    return (
        f"rewards failed over some of {responses} responses ({told}); those that the judging "
        "reward failed over count as wrong, whatever they say"
    )


def decoded(tokenizer: Any, generations: Sequence[Generation]) -> list[str]:
    """Each response as text, without special tokens."""
    return [tokenizer.decode(g.response_ids, skip_special_tokens=True) for g in generations]


def score(
    rewards: RewardSet, prompts: Sequence[Prompt], generations: Sequence[Generation], tokenizer: Any
) -> RewardResult:
    """Score one completion per prompt."""
    return score_texts(rewards, prompts, generations, decoded(tokenizer, generations))


def score_texts(
    rewards: RewardSet,
    prompts: Sequence[Prompt],
    generations: Sequence[Generation],
    texts: Sequence[str],
) -> RewardResult:
    """Score one completion per prompt, decoded already.

    A chat prompt's completion is an assistant message, as in TRL. A response in several turns is a
    chat with those of the environment, and its prompt has what the environment added.
    """
    names = sorted({name for prompt in prompts for name in prompt.columns})
    rows = list(zip(prompts, generations, texts, strict=True))
    columns = {name: [p.columns.get(name) for p in prompts] for name in names}
    return rewards.score(
        [p.text_or_messages if g.played is None else g.played.asked for p, g, _ in rows],
        [completion_of(*row) for row in rows],
        [g.response_ids.tolist() for g in generations],
        columns | of_episodes(generations, columns),
        [g.finish_reason for g in generations],
    )


def completion_of(prompt: Prompt, generation: Generation, text: str) -> Any:
    """A response as rewards see it: a text, or messages."""
    if generation.played is not None:
        return [dict(message) for message in generation.played.messages]
    chat = not isinstance(prompt.text_or_messages, str)
    return [{"role": "assistant", "content": text}] if chat else text


def of_episodes(
    generations: Sequence[Generation], columns: Collection[str]
) -> dict[str, list[Any]]:
    """What rewards are told of responses in several turns; nothing if there are none.

    Raises UserError if the task has a column of the same name.
    """
    played = [generation.played for generation in generations]
    if not any(played):
        return {}
    for name in (COLUMN, HANDLES):
        if name in columns:
            raise UserError(
                f"the task has a column called '{name}', in which rewards find what the "
                "environment says; rename it"
            )
    return {
        COLUMN: [each and each.reward for each in played],
        HANDLES: [each and each.handle for each in played],
    }
