"""Does the reward give full marks to the gold answers, and none to wrong ones?"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.composition.doctor.check import Check, Notes, duration, share
from rlkit.composition.doctor.patient import Patient, Unavailable
from rlkit.composition.doctor.problems import spread
from rlkit.composition.rehearsal import copied, firsts
from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.rewards.judges import FULL_MARKS, Judges
from rlkit.rewards.scoring import FINISH_REASONS, score_all

NAME = "reward"
ROWS, SECONDS = 16, 8.0
"""Gold answers that are tried: at most, and for about how long."""
FORMS = {
    "in \\boxed{}": "\\boxed{%s}",
    "after ####": "#### %s",
    "in <answer> tags": "<answer>%s</answer>",
    "in a sentence": "The answer is %s.",
    "bare": "%s",
}
"""Forms of an answer, by what they are called; the first three may be asked for."""
ASKS = {"in \\boxed{}": r"\\boxed", "after ####": r"####", "in <answer> tags": r"<answer>"}
"""By form: what a prompt that asks for it holds."""
ANSWER = "answer"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Marker:
    """Marks answers by the reward that counts."""

    rewards: Mapping[str, Reward]
    judges: Judges
    asked: Any
    """How a row's prompt is put to the model."""

    def marks(self, rows: Sequence[Row], texts: Sequence[str]) -> list[float | None]:
        """What the reward that counts gives to a text for each row."""
        prompts = [self.asked(row["prompt"]) for row in rows]
        completions = [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        names = sorted({name for row in rows for name in row} - {"prompt"})
        given: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
        given["completion_ids"] = [[] for _ in rows]
        given[FINISH_REASONS] = ["stop" for _ in rows]
        found = score_all(self.rewards, prompts, completions, given).components
        return [found[self.judges.of(row)][i] for i, row in enumerate(rows)]


def check(patient: Patient) -> Check:
    """Score the gold answers in several forms, wrong answers, and empty ones."""
    notes, c = Notes(NAME), patient.c
    if not c.rewards:
        notes.fine("The run has no reward, so no gold answer can be tried.")
        return notes.result()
    train, _ = c.rows
    sets = firsts(c.task, train)
    chosen = [
        row for some in sets for row in spread(some, max(2, ROWS // len(sets))) if gold_of(row)
    ]
    if not chosen:
        notes.fine("The task has no column 'answer', so no gold answer can be tried.")
        return notes.result()
    rewards = c.named_rewards
    copies = {name: copied(reward) for name, reward in rewards.items()}
    judges = c.judges if c.judges.default in copies else c.training_judges
    try:
        for name, reward in copies.items():
            reward.open(rewards[name].context)
        marker = Marker(copies, judges, asking(patient))
        started = time.perf_counter()
        marker.marks(chosen[:1], [""])  # starts what it needs
        started, first = time.perf_counter(), time.perf_counter() - started
        marker.marks(chosen[:1], [""])
        each = time.perf_counter() - started
        tries = len(FORMS) + 4
        most = max(2, int(SECONDS / (tries * max(each, 1e-4) * len(sets))))
        tried = 0
        for judge in dict.fromkeys(judges.of(row) for row in chosen):
            rows = [row for row in chosen if judges.of(row) == judge][:most]
            accepted = try_forms(marker, rows)
            judge_forms(notes, judge, rows, accepted)
            check_wrong(notes, marker, rows, best_form(rows, accepted))
            tried += len(rows)
    finally:
        for reward in copies.values():
            reward.close()
    notes.fine(f"A call for one response takes {duration(each)} (the first one {duration(first)}).")
    notes.figures |= {"seconds_per_response": each, "tried": tried}
    return notes.result()


def asking(patient: Patient) -> Any:
    """How the run puts a prompt; as it stands if that cannot be known."""
    try:
        return patient.problems.encoder.asked
    except (Unavailable, UserError):
        return lambda prompt: prompt


def gold_of(row: Row) -> str:
    """The answer of a row as text; empty if it has none."""
    answer = row.get(ANSWER)
    return "" if answer is None else str(answer).strip()


def forms_of(row: Row) -> dict[str, str]:
    """The gold answer of a row in each form, and other columns that may hold a whole solution."""
    gold = gold_of(row)
    out = {name: form.replace("%s", gold) for name, form in FORMS.items()}
    for column, value in row.items():
        whole = isinstance(value, str) and column not in ("prompt", ANSWER)
        if whole and gold in value and value.strip() != gold:
            out[f"as in the column '{column}'"] = value
    return out


def try_forms(marker: Marker, rows: Sequence[Row]) -> dict[str, list[bool]]:
    """By form: whether each row's gold answer gets full marks in it."""
    every = [forms_of(row) for row in rows]
    names = [name for name in every[0] if all(name in forms for forms in every)]
    found = {}
    for name in names:
        marks = marker.marks(rows, [forms[name] for forms in every])
        found[name] = [mark is not None and mark >= FULL_MARKS for mark in marks]
    return found


def asked_form(rows: Sequence[Row]) -> str | None:
    """The form that the prompts ask for, if most do."""
    for name, sign in ASKS.items():
        if sum(re.search(sign, str(row["prompt"])) is not None for row in rows) > len(rows) / 2:
            return name
    return None


def best_form(rows: Sequence[Row], accepted: Mapping[str, list[bool]]) -> str:
    """The form the prompts ask for, or the one with most full marks."""
    asked = asked_form(rows)
    return asked or max(accepted, key=lambda name: sum(accepted[name]))


def judge_forms(
    notes: Notes, judge: str, rows: Sequence[Row], accepted: Mapping[str, list[bool]]
) -> None:
    """Full marks for gold answers in the form asked for, or else in any."""
    asked, best = asked_form(rows), best_form(rows, accepted)
    good, total = sum(accepted[best]), len(rows)
    where = f"{best}, as the prompts ask" if asked else best
    notes.figures |= {f"accepted {name}": sum(marks) for name, marks in accepted.items()}
    taken = [name for name, marks in accepted.items() if all(marks)]
    if good == total:
        notes.fine(f"'{judge}' gives full marks to {share(good, total)} gold answers {where}.")
        bare = asked is None and "bare" not in taken and best in ASKS
        if bare:
            notes.warn(
                f"It gives them none bare, and the prompts do not ask for an answer {best}.",
                'Say so in the prompts: task.suffix=" Put the final answer in \\\\boxed{}."',
            )
        return
    row = rows[accepted[best].index(False)]
    example = f"the first that does not get them: {forms_of(row)[best]!r} to {brief(row)}"
    others = f"; forms it always takes: {', '.join(taken)}" if taken else ""
    told = notes.problem if good < 0.5 * total else notes.warn
    told(
        f"'{judge}' gives full marks to only {share(good, total)} gold answers {where}{others}; "
        f"{example}.",
        "What cannot be rewarded cannot be learned: choose a reward that reads this form, ask for "
        "another form in the prompts (task.suffix), or mend these answers.",
    )


def check_wrong(notes: Notes, marker: Marker, rows: Sequence[Row], form: str) -> None:
    """No full marks for an empty answer, nor for the answer to another problem."""
    empty = sum((m or 0.0) >= FULL_MARKS for m in marker.marks(rows, [""] * len(rows)))
    if empty:
        notes.problem(
            f"It gives full marks to an empty answer for {share(empty, len(rows))} problems.",
            "Mend the reward: saying nothing must not pay.",
        )
    pairs = [(row, other) for row in rows if (other := another(row, rows)) is not None]
    if not pairs:
        return
    wrong = [forms_of({**row, **other})[form] for row, other in pairs]
    marks = marker.marks([row for row, _ in pairs], wrong)
    bad = [i for i, mark in enumerate(marks) if (mark or 0.0) >= FULL_MARKS]
    notes.figures |= {"wrong_accepted": len(bad), "empty_accepted": empty}
    if bad:
        told = notes.problem if len(bad) > 1 else notes.warn
        told(
            f"It gives full marks to {share(len(bad), len(pairs))} wrong answers; the first: "
            f"{wrong[bad[0]]!r} to {brief(pairs[bad[0]][0])}.",
            "Mend the reward, or check that these answers are really different.",
        )
    elif not empty:
        notes.fine("It gives them neither to wrong nor to empty answers.")


def another(row: Row, rows: Sequence[Row]) -> dict[str, Any] | None:
    """The answer, and columns with text, of the first row that is answered differently."""
    for other in rows:
        if gold_of(other) != gold_of(row):
            texts = {k: v for k, v in other.items() if isinstance(v, str) and k != "prompt"}
            return {**texts, ANSWER: other[ANSWER]}
    return None


def brief(row: Row) -> str:
    """A row's problem and answer, cut."""
    text = " ".join(str(row["prompt"]).split())
    return f"{text[:80]!r} (answer {gold_of(row)[:40]!r})"
