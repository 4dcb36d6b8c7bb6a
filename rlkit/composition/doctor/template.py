"""Are prompts written as the model's chat template wants them?"""

from __future__ import annotations

from typing import Any

from rlkit.composition.doctor.check import Check, Notes
from rlkit.composition.doctor.patient import Patient
from rlkit.errors import UserError
from rlkit.tasks.encode import PROBE, Encoder

NAME = "chat template"
ANSWER = "1147"
"""An answer to see what is written in front of it."""
THINK = "<think>"


def check(patient: Patient) -> Check:
    """The beginning-of-sequence token, the beginning of the assistant's turn, and what thinks."""
    notes, looked = Notes(NAME), patient.problems
    encoder, ids = looked.encoder, looked.first.ids.tolist()
    chat = not isinstance(looked.first.text_or_messages, str)
    if chat:
        notes.fine("Prompts take the model's chat template.")
        check_turn(notes, encoder)
    elif encoder.has_template:
        notes.fine("Prompts are used as written, though the model has a chat template.")
    else:
        notes.fine("The model has no chat template: prompts are used as written.")
    check_bos(notes, encoder, ids)
    notes.fine(f"The first one: {encoder.shown(ids)}")
    notes.figures |= {"chat": chat, "first": encoder.shown(ids)}
    return notes.result()


def check_bos(notes: Notes, encoder: Encoder, ids: list[int]) -> None:
    """The beginning-of-sequence token stands there once if the tokenizer puts it before a text."""
    bos: Any = encoder.tokenizer.bos_token_id
    if bos is None:
        return
    leading = next((i for i, token in enumerate(ids) if token != bos), len(ids))
    plain: list[int] = encoder.tokenizer(PROBE)["input_ids"]
    token = encoder.tokenizer.bos_token
    if leading > 1:
        notes.problem(
            f"Prompts begin with {leading} beginning-of-sequence tokens ({token}).",
            f"Remove {token} from the data, which the tokenizer adds by itself, or from one of the "
            "two places that write it.",
        )
    elif leading == 0 and plain[:1] == [bos]:
        notes.warn(
            f"Prompts begin without the token {token} that the tokenizer puts before a text.",
            "If the model was trained with it, add it to its chat template.",
        )


def check_turn(notes: Notes, encoder: Encoder) -> None:
    """What the template writes between a prompt and an answer must end the prompt."""
    asked = [{"role": "user", "content": PROBE}]
    tokenizer: Any = encoder.tokenizer
    try:
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(
            [*asked, {"role": "assistant", "content": ANSWER}], tokenize=False
        )
    except Exception as error:
        raise UserError(f"the chat template refuses a question and its answer: {error}") from error
    between = whole.partition(PROBE)[2].partition(ANSWER)[0]
    follows = prompt.partition(PROBE)[2]
    if follows.rstrip().endswith(THINK):
        notes.fine(
            "The template opens <think>, so that responses begin inside it and never hold the "
            "opening tag: rewards must not ask for it."
        )
    elif follows.strip() == between.strip():
        notes.fine("It ends with the beginning of the assistant's turn.")
    elif THINK in between or THINK in follows:
        notes.fine(
            f"A prompt ends with {follows!r}; a finished turn has {between!r} there instead, since "
            "the template rewrites what was thought."
        )
    else:
        notes.problem(
            f"A prompt ends with {follows!r}, but before an answer the template writes "
            f"{between!r}: the model is asked to answer where no answer begins.",
            "Use a chat template that heeds add_generation_prompt.",
        )
