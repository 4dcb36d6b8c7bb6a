"""A set of problems ready to be asked: prompts in a template, and the reward that marks answers."""

from __future__ import annotations

import sys
from typing import Any

from rlkit.errors import UserError
from rlkit.evaluation.accepted import TOLERANCE, Accepted
from rlkit.evaluation.problems import ProblemSet
from rlkit.evaluation.templates import question
from rlkit.models.embedded import CHARACTERS
from rlkit.models.policy import Policy
from rlkit.rewards.math.reward import MathConfig
from rlkit.tasks.encode import Encoder
from rlkit.tasks.prompts import Prompts


def prompts_of(problems: ProblemSet, tokenizer: Any, template: str) -> Prompts:
    """The problems' prompts in a template, exactly as it writes them; with their lengths counted.

    Raises UserError for a template that the model cannot read, and a problem without tokens.
    """
    encoder = Encoder(tokenizer, "never")
    rows = [{**row, "prompt": question(template, row["prompt"], encoder)} for row in problems.rows]
    return Prompts(problems.name, rows, tokenizer, "never").within(sys.maxsize, "error")


def reward_of(problems: ProblemSet) -> Accepted:
    """The math reward for them.

    Two answers count as one vote within the smallest tolerance that any problem has.
    """
    tolerances = [float(row.get(TOLERANCE, 0.0)) for row in problems.rows]
    return Accepted(MathConfig(tolerance=min(tolerances, default=0.0)))


def room(prompts: Prompts, policy: Policy) -> int:
    """Tokens that a response to the longest prompt may have in the model; no limit if unknown."""
    config = policy.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    return sys.maxsize if positions is None else int(positions) - prompts.longest


def check_room(prompts: Prompts, policy: Policy, max_tokens: int) -> None:
    """Raise UserError unless the longest prompt and a response have positions in the model."""
    left = room(prompts, policy)
    if left < max_tokens:
        lower = "lower it" if left > 0 else "use a model with more positions"
        raise UserError(
            f"the longest prompt of {prompts.name} has {prompts.longest} tokens; of the model's "
            f"positions {max(left, 0)} are left for a response, fewer than --max-tokens "
            f"{max_tokens}: {lower}"
        )


def is_readable(problems: ProblemSet) -> bool:
    """Whether the embedded model has a token for every character."""
    return all({*str(row["prompt"])} <= {*CHARACTERS} for row in problems.rows)
