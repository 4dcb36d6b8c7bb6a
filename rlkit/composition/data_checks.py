"""Checks that a run's problems suit its model, its rewards and its buffer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from rlkit.composition.composition import Composition
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.rewards.scoring import check_columns
from rlkit.tasks.prompts import Prompts

Row = Mapping[str, Any]


def check_data(c: Composition, policy: Policy, sets: Sequence[Prompts]) -> None:
    """Check training and evaluation problems. Raises UserError with what to change."""
    if c.task.embedded and c.eval_task.embedded:
        return
    longest = c.engine.config.max_completion_length, c.longest_evaluated
    for prompts, completion in zip(sets, longest, strict=True):
        check_columns({name for row in prompts.rows for name in row})
        check_room(prompts, policy, completion)
    if c.buffer.keeps_columns:
        check_kept(sets[0].rows)


def check_room(prompts: Prompts, policy: Policy, completion: int) -> None:
    """Check that prompt and completion have positions in the model, and token ids embeddings."""
    model = policy.model
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and prompts.longest and prompts.longest + completion > positions:
        raise UserError(
            f"the longest prompt of the {prompts.name} set has {prompts.longest} tokens, and with "
            f"rollout.max_completion_length={completion} that is more than the model's {positions} "
            "positions; lower it, or lower rollout.max_prompt_length and set task.overlong=drop"
        )
    embeddings: Any = model.get_input_embeddings()
    rows = int(embeddings.num_embeddings)
    if prompts.highest >= rows:
        raise UserError(
            f"the {prompts.name} set has the token {prompts.highest}, but the model embeds only "
            f"{rows} tokens (0 to {rows - 1}): its tokenizer is another model's"
        )


def check_kept(rows: Iterable[Row]) -> None:
    """Check that a checkpoint can keep every column: text, numbers, lists, dicts of such."""
    for row in rows:
        for name, value in row.items():
            if (kind := unkept(value)) is not None:
                raise UserError(
                    f"column '{name}' of the task holds a {kind}, which a checkpoint cannot keep, "
                    "and this buffer stores prompts with their columns; make it text, a number, a "
                    "list, or a dict with text keys"
                )


def unkept(value: Any) -> str | None:
    """The type of the first value inside that a checkpoint cannot keep; None if it can keep all."""
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return None
    if isinstance(value, list | tuple):
        return next((kind for item in value if (kind := unkept(item)) is not None), None)
    if isinstance(value, Mapping) and all(
        isinstance(key, str) and key != "$tensor" for key in value
    ):
        return unkept(list(value.values()))
    return type(value).__name__
