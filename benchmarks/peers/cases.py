"""The cases of the comparison: sizes, settings of both sides, targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """One comparison. The numbers are the same on both sides."""

    name: str
    model: str
    """llama1m or smollm2."""
    data: str
    """Which prompts: sums, chat or long."""
    reward: str
    """A function of peers/reward.py."""
    prompts: int
    tokens: int
    """Most tokens of a response."""
    steps: int
    """Measured steps, after one that is not."""
    repeats: int
    learning_rate: float
    micro_batch_tokens: int
    """rlkit's; results do not depend on it."""
    trl_rows: int
    """Responses in one of TRL's micro-batches; `vs_trl.py --tune` finds the fastest."""
    step_target: float
    """Most of rlkit's seconds per step over TRL's."""
    peak_target: float
    n: int = 8
    """Responses per prompt."""
    beta: float = 0.0
    equal: bool = False
    """No token can end a response, so that all have `tokens`."""
    device: str = "cpu"
    dtype: str = "float32"
    overrides: tuple[str, ...] = ()
    """More words of rlkit's command line."""

    @property
    def key(self) -> str:
        """The case's name among the results."""
        parts = [self.name]
        parts += ["equal lengths"] * self.equal
        parts += [f"beta {self.beta:g}"] * (self.beta > 0)
        parts += [f"{self.device} {self.dtype}"] * (self.device != "cpu")
        return ", ".join(parts)

    @property
    def responses(self) -> int:
        """Responses per step."""
        return self.prompts * self.n


LLAMA = Case(
    name="llama1m",
    model="llama1m",
    data="sums",
    reward="even",
    prompts=32,
    tokens=28,
    steps=8,
    repeats=5,
    learning_rate=1e-3,
    micro_batch_tokens=1024,
    trl_rows=256,
    step_target=0.4,
    peak_target=0.5,
)
SMOLLM = Case(
    name="smollm2",
    model="smollm2",
    data="chat",
    reward="total",
    prompts=8,
    tokens=64,
    steps=2,
    repeats=3,
    learning_rate=1e-5,
    micro_batch_tokens=1024,
    trl_rows=16,
    step_target=0.35,
    peak_target=0.35,
)
LONG = replace(
    SMOLLM,
    name="smollm2_long",
    data="long",
    prompts=2,
    tokens=32,
    trl_rows=8,
    step_target=0.25,
)
CASES = {
    case.key: case
    for case in (
        LLAMA,
        replace(LLAMA, equal=True),
        replace(LLAMA, beta=0.04),
        SMOLLM,
        replace(SMOLLM, equal=True),
        LONG,
        replace(LONG, equal=True),
    )
}


def quick(case: Case) -> Case:
    """The case in a few seconds, to see that both sides run and agree."""
    sizes = replace(case, prompts=2, n=4, tokens=6, steps=1, repeats=1, trl_rows=8)
    return replace(sizes, name=f"{case.name} (quick)")


def shown(case: Case) -> dict[str, Any]:
    """The settings that both sides have, for the results."""
    return {
        "prompts per step": case.prompts,
        "responses per prompt": case.n,
        "most response tokens": case.tokens,
        "measured steps": case.steps,
        "learning rate": case.learning_rate,
        "beta": case.beta,
        "equal lengths": case.equal,
        "device": case.device,
        "dtype": case.dtype,
    }
