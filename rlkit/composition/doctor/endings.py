"""Do responses begin and end as they should, and is the token that ends them trained?"""

from __future__ import annotations

from typing import Any

from rlkit.composition.doctor.check import Check, Notes, share
from rlkit.composition.doctor.patient import Patient
from rlkit.rollout.stops import Stops, end_tokens, special_tokens

NAME = "endings"


def check(patient: Patient) -> Check:
    """The tokens that end a response, the template's end of a turn, and what was sampled."""
    notes, policy = Notes(NAME), patient.policy
    ends = end_tokens(policy)
    stops = Stops.of(patient.engine.config.stop, special_tokens(policy.tokenizer))
    written = ", ".join(repr(policy.tokenizer.decode([end])) for end in [*ends, *stops.tokens])
    notes.fine(f"Responses end with {written}.")
    check_known(notes, policy.model, ends)
    check_turn_end(notes, patient, {*ends, *stops.tokens})
    check_beginnings(notes, patient)
    check_last(notes, patient, {*ends, *stops.tokens})
    return notes.result()


def check_known(notes: Notes, model: Any, ends: list[int]) -> None:
    """The model has these tokens, and its config knows no other end."""
    rows = int(model.get_input_embeddings().num_embeddings)
    if beyond := [end for end in ends if end >= rows]:
        notes.problem(
            f"The end token {beyond[0]} does not exist in the model, which has {rows} tokens.",
            "Use the model's own tokenizer and generation config.",
        )
    configured = getattr(model.config.get_text_config(), "eos_token_id", None)
    own = configured if isinstance(configured, list) else [configured]
    if other := [end for end in own if end is not None and end not in ends]:
        notes.warn(
            f"The model's config ends sequences with the token {other[0]}, but the tokenizer and "
            "the generation config do not.",
            "Set eos_token_id alike in config.json, generation_config.json and the tokenizer.",
        )


def check_turn_end(notes: Notes, patient: Patient, ends: set[int]) -> None:
    """What the chat template writes behind an answer must end a response."""
    looked = patient.problems
    if isinstance(looked.first.text_or_messages, str):
        return
    last = looked.encoder.response("1147")[-1]
    if last not in ends:
        token = patient.policy.tokenizer.decode([last])
        notes.problem(
            f"The chat template ends a turn with {token!r}, which does not end a response: the "
            "model would go on until the length limit.",
            f"Set rollout.stop=[{token!r}], or add its id ({last}) to eos_token_id in "
            "generation_config.json.",
        )


def check_beginnings(notes: Notes, patient: Patient) -> None:
    """A response that begins with a special token repeats the template, or is empty."""
    tokenizer = patient.policy.tokenizer
    special = set(special_tokens(tokenizer).values())
    first = [int(g.response_ids[0]) for _, g in patient.answers.flat if len(g.response_ids)]
    odd = [token for token in first if token in special]
    notes.figures |= {"begin_with_special": len(odd)}
    if len(odd) > len(first) / 4:
        common = max(set(odd), key=odd.count)
        notes.warn(
            f"{share(len(odd), len(first))} responses begin with a special token, mostly "
            f"{tokenizer.decode([common])!r}.",
            "Look at the prompt above: does it end where an answer begins?",
        )


def check_last(notes: Notes, patient: Patient, ends: set[int]) -> None:
    """A response that ended holds the token that ended it, and the loss counts it."""
    samples = [s for group in patient.collected.groups for s in group.samples]
    stopped, total = [s for s in samples if s.finish_reason == "stop"], len(samples)
    texts = patient.engine.config.stop
    lost = [s for s in stopped if not len(s.response_ids) or int(s.response_ids[-1]) not in ends]
    masked = [s for s in stopped if len(s.loss_mask) and not bool(s.loss_mask[-1])]
    notes.figures |= {"ended": len(stopped), "without_end": len(lost), "end_masked": len(masked)}
    if lost and not texts:
        notes.problem(
            f"{share(len(lost), len(stopped))} responses that ended do not hold the token that "
            "ended them, so ending is not trained.",
            "Let the engine return the end token with its log-prob.",
        )
    if masked:
        notes.problem(
            f"The last token of {share(len(masked), len(stopped))} responses that ended is not in "
            "the loss.",
            "Set the loss mask of the end token.",
        )
    if not stopped:
        return
    pad = patient.policy.tokenizer.pad_token_id
    same = ", also though padding has the same id" if pad in ends else ""
    if not (lost or masked):
        notes.fine(
            f"Of {total} responses {len(stopped)} ended by themselves, and that token is in their "
            f"loss{same}."
        )
