"""What an environment says as tokens behind a sampled turn: by difference against dummy turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from rlkit.errors import UserError
from rlkit.interfaces import Message
from rlkit.tasks.encode import special_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "qz{}zq"
"""What a dummy turn says, with a number that makes it unlike any of the messages."""
REFUSALS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)
"""What rendering raises if a template does not accept a chat."""
COMPACT = "compact calls"
"""What a chat template holds, in a comment, whose model was taught to call without schemas."""
PROBES: tuple[list[Message], ...] = (
    [{"role": "tool", "name": "f", "content": "a", "tool_call_id": "call00000"}],
    [{"role": "user", "content": "a"}],
)
"""Observations of either kind, to see whether a template can render any."""


def observation_ids(
    tokenizer: PreTrainedTokenizerBase, sampled: Sequence[int], messages: Sequence[Message]
) -> list[int]:
    """The tokens that come between a sampled turn and the next: new messages and the next header.

    Two chats are rendered: a dummy turn of the policy, alone and followed by `messages`. What the
    second has behind the dummy's end is the observation, whatever the template makes of earlier
    turns. `sampled`, the turn's own tokens, is never rendered; only its last token counts: if it is
    no special token, the turn was cut by a stop text, and the template's end of turn is written
    first; if it is what the observation begins with, it is not written twice.

    Raises UserError if the template refuses such messages, or keeps nothing of a dummy turn by
    which the difference could be found.
    """
    ended = bool(sampled) and sampled[-1] in _special_ids(tokenizer)
    before, behind = _difference(tokenizer, messages)
    ids = _ids_behind(tokenizer, before, behind)
    if not ended:
        return [*_end_ids(tokenizer, behind), *ids]
    return ids[1:] if ids and ids[0] == sampled[-1] else ids


def template_notes(tokenizer: PreTrainedTokenizerBase, *, tools: bool) -> list[str]:
    """What the user should know about a chat template that several turns go through, a line each.

    Raises UserError if it can render neither a tool's answer, if there are `tools`, nor a user's
    second message otherwise.
    """
    observation_ids(tokenizer, [], PROBES[0 if tools else 1])
    notes: list[str] = []
    if not keeps_prefix(tokenizer):
        notes.append(
            "the chat template rewrites earlier turns (it drops their thoughts): the policy goes "
            "on from the tokens that it sampled, which differ from what the template would write"
        )
    taught = COMPACT in str(tokenizer.chat_template)
    if tools and not taught and not shows_tools(tokenizer):
        notes.append(
            "the chat template shows no tools to the model: describe them and the form of a call "
            "in the prompts, or use a model that was trained to call tools"
        )
    return notes


def keeps_prefix(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a longer chat is rendered as a continuation of a shorter one, with thoughts too."""
    said = "<think>\nwhy\n</think>\n\nsure"
    chat: list[Message] = [{"role": "user", "content": "a"}]
    answered: list[Message] = [*chat, {"role": "assistant", "content": said}]
    longer: list[Message] = [*answered, {"role": "user", "content": "b"}]
    try:
        start = _rendered(tokenizer, chat, answer_follows=True)
        middle = _rendered(tokenizer, answered, answer_follows=False)
        whole = _rendered(tokenizer, longer, answer_follows=True)
    except REFUSALS:
        return False
    shared = middle.rstrip()
    return whole.startswith(shared) and said in whole and whole.startswith(start)


def shows_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template writes the schemas of tools anywhere in a prompt."""
    chat: list[Message] = [{"role": "user", "content": "a"}]
    function = {"name": "f4711", "description": "d", "parameters": {"type": "object"}}
    tools: list[Any] = [{"type": "function", "function": function}]
    try:
        text = tokenizer.apply_chat_template(
            [dict(m) for m in chat], tools=tools, tokenize=False, add_generation_prompt=True
        )
    except REFUSALS:
        return False
    return "f4711" in str(text)


def _difference(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[str, str]:
    """The text up to the end of a dummy turn, and the text behind it. Raises UserError."""
    if tokenizer.chat_template is None:
        raise UserError(
            "episodes of several turns need a chat template, and this model's tokenizer has none; "
            "use a chat model"
        )
    mark, contents = _marks(messages)
    probes: list[Message] = [
        {**message, "content": content} for message, content in zip(messages, contents, strict=True)
    ]
    refusal = ""
    for dummy in _dummies(messages, mark):
        chat: list[Message] = [{"role": "user", "content": "dummy"}, dummy]
        try:
            _, probed = _split(tokenizer, chat, probes, mark)
            if all(content in probed for content in contents):
                return _split(tokenizer, chat, messages, mark)
            refusal = "it leaves them out"
        except REFUSALS as error:
            refusal = " ".join(str(error).split())[:200] or type(error).__name__
    roles = ", ".join(str(message["role"]) for message in messages)
    raise UserError(
        f"the chat template cannot write what the environment says (messages of the role {roles}) "
        f"behind a turn: {refusal}; use a model whose template knows them"
    )


def _marks(messages: Sequence[Message]) -> tuple[str, list[str]]:
    """A text that no message holds, for the dummy turn, and one for each message."""
    everything, number = str(messages), 0
    while MARK.format(number) in everything:
        number += 1
    return MARK.format(number), [MARK.format(f"{number}x{i}") for i in range(len(messages))]


def _dummies(messages: Sequence[Message], mark: str) -> Iterator[Message]:
    """Turns that `messages` could answer, which hold `mark` near their end.

    Some templates want the calls that were answered, some allow only one, some refuse any. Most
    write a text in front of the calls, and the arguments last; some write no arguments.
    """
    answers = [message for message in messages if message["role"] == "tool"]
    for answered in (answers, answers[:1]) if answers else ():
        calls = [
            {
                "type": "function",
                "function": {"name": answer.get("name", "f"), "arguments": {"x": mark}},
                "id": answer.get("tool_call_id", "call00000"),
            }
            for answer in answered
        ]
        for content in ("", mark):
            yield {"role": "assistant", "content": content, "tool_calls": calls}
    yield {"role": "assistant", "content": mark}


def _split(
    tokenizer: PreTrainedTokenizerBase,
    chat: Sequence[Message],
    messages: Sequence[Message],
    mark: str,
) -> tuple[str, str]:
    """The chat with `messages`, cut at the end of its dummy turn. Raises ValueError if it has none.

    The end is the last special token that the dummy turn has whether messages follow or not. If
    there is none, the turn ends with its call or text, and the rest of what the template writes
    around a turn comes from the environment.
    """
    alone = _rendered(tokenizer, chat, answer_follows=False).rpartition(mark)[2]
    before, found, behind = _rendered(
        tokenizer, [*chat, *messages], answer_follows=True
    ).rpartition(mark)
    if not found:
        raise ValueError("it keeps nothing of the turn")
    shared = _shared(alone, behind)
    specials = _special_texts(tokenizer)
    size = max((shared.rfind(t) + len(t) for t in specials if t in shared), default=0)
    if not size:
        size = _written_call(tokenizer, alone, behind)
        # A turn that ends the chat may have another end than one that is followed.
        other = any(alone[size:].startswith(t) for t in specials)
        size += max((len(t) for t in specials if other and behind[size:].startswith(t)), default=0)
    return before + mark + behind[:size], behind[size:]


def _written_call(tokenizer: PreTrainedTokenizerBase, alone: str, behind: str) -> int:
    """How much of `behind` still belongs to the dummy's call: what a turn of text has not."""
    call = alone.removesuffix(_tail(tokenizer))
    return len(call) if behind.startswith(call) else 0


def _shared(one: str, other: str) -> str:
    """The longest text that both begin with."""
    size = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: len(other)] if size is None else one[:size]


def _tail(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template writes behind a turn of text that ends the chat."""
    mark = MARK.format(0)
    chat: list[Message] = [
        {"role": "user", "content": "dummy"},
        {"role": "assistant", "content": mark},
    ]
    return _rendered(tokenizer, chat, answer_follows=False).rpartition(mark)[2]


def _ids_behind(tokenizer: PreTrainedTokenizerBase, before: str, behind: str) -> list[int]:
    """The ids of `behind` as they are in the whole text; by themselves if a token spans both.

    What is before the last special token has no influence.
    """
    before = before[max([0, *(before.rfind(token) for token in _special_texts(tokenizer))]) :]
    start, whole = _ids(tokenizer, before), _ids(tokenizer, before + behind)
    return whole[len(start) :] if whole[: len(start)] == start else _ids(tokenizer, behind)


def _end_ids(tokenizer: PreTrainedTokenizerBase, behind: str) -> list[int]:
    """The ids of the template's end of a turn of text; none if `behind` begins with it."""
    tail = _tail(tokenizer)
    end = tail[
        : max((tail.rfind(t) + len(t) for t in _special_texts(tokenizer) if t in tail), default=0)
    ]
    return [] if behind.startswith(end) else _ids(tokenizer, end)


@lru_cache(maxsize=8)
def _special_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    return special_texts(tokenizer)


@lru_cache(maxsize=8)
def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    ids: Any = tokenizer.convert_tokens_to_ids(list(_special_texts(tokenizer)))
    return frozenset(int(i) for i in ids)


def _rendered(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[Message], *, answer_follows: bool
) -> str:
    return str(
        tokenizer.apply_chat_template(
            [dict(m) for m in chat], tokenize=False, add_generation_prompt=answer_follows
        )
    )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
