"""How far an episode with an environment may go."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlkit.interfaces import PartConfig


class TurnsConfig(PartConfig):
    """Limits of responses in several turns; without an environment nothing reads them.

    The tokens of a whole response, those of the environment too, are limited by
    rollout.max_completion_length.
    """

    max: Annotated[int, Field(ge=1)] = 8
    """Turns of the policy in a response. The environment still answers the last one, so that its
    calls count, but the policy does not see the answer: finish reason "turns"."""
    max_observation_tokens: Annotated[int, Field(ge=1)] | None = 256
    """Tokens of the content of a message from the environment; of a longer one the beginning stays,
    with a line that says how much was cut. null = no limit."""
    max_calls: Annotated[int, Field(ge=1)] | None = None
    """Calls in one turn that are run; the others are answered by a line that says so. null = no
    limit."""
    call_format: str = "auto"
    """How calls are written: template, hermes, qwen_xml, llama3, mistral, compact or none; auto =
    what the environment needs, or else what the tokenizer or its chat template says
    (docs/environments.md)."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which a response gets no further turn: finish reason "time". What is cut by a
    clock cannot be repeated bit for bit. null = no limit."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Episodes in progress at once; the samples do not depend on it. null = all of a step."""
