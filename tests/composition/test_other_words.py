"""TRL's and verl's settings are answered with ours."""

from __future__ import annotations

import re

import pytest

from rlkit.composition.error_messages import MAPPED, known_keys, one_line
from rlkit.composition.other_words import TRL, VERL, in_our_words
from tests.cli import ROOT
from tests.compositions import raw_of

KEY = re.compile(r"`([\w.]+)")
PAGE = (ROOT / "docs" / "migrating.md").read_text()
SAME = {"seed", "output_dir"}
"""Keys that are the same here."""


def table(after: str) -> list[tuple[list[str], str]]:
    """The keys of the first column and the text of the second, of a table of the page."""
    text = PAGE.partition(after)[2]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    return [(KEY.findall(row[1]), row[2]) for row in rows]


@pytest.mark.parametrize(
    ("known", "rows"), [(TRL, table("| TRL's `GRPOConfig`")), (VERL, table("| verl | rlkit"))]
)
def test_every_key_of_the_page_has_a_hint_that_names_the_same(
    known: dict[str, str], rows: list[tuple[list[str], str]]
) -> None:
    if known is TRL:
        rows = rows[: len(rows) - len(table("| verl | rlkit"))]
    assert len(rows) > 25
    for theirs, ours in rows:
        for key in theirs:
            if key in SAME or key in ("GRPOTrainer", "a", "register_policy_loss"):
                continue
            named = set(re.findall(r"[a-z]+(?:\.\w+)*(?==)|[a-z]+\.[\w.]+|^\w+$", known[key]))
            assert any(name in ours for name in named), (key, ours, known[key])


@pytest.mark.slow
@pytest.mark.parametrize("key", [*TRL, *VERL])
def test_a_hint_names_keys_that_exist(key: str) -> None:
    first = re.split(r"[ =,]", (TRL | VERL)[key])[0].replace("<name>", "math")
    assert first in known_keys()
    assert key not in known_keys()


def test_the_message_of_a_run_is_the_hint() -> None:
    for override, ours in (
        ("beta=0.1", "here it is anchor=base and anchor.beta"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=4", "here it is train.minibatches"),
        ("trainer.total_epochs=1", "here it is train.steps"),
        ("+trainer.nnodes=1", "`accelerate launch`"),
        ("min_p=0.1", "min_p is TRL's; there is no such setting here (docs/migrating.md)"),
        ("+trainer.balance_batch=true", "is verl's, and docs/migrating.md names no counterpart"),
    ):
        with pytest.raises(MAPPED) as caught:
            raw_of(override.lstrip("+"))
        assert ours in one_line(caught.value)
    assert in_our_words("train.stepz") is None
