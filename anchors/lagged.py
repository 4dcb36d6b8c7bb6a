"""The base lags behind the policy by some steps.

    refreshed:  base = pi_k at k = 1, 1 + lag, 1 + 2 lag, ...           0 to lag - 1 steps old
    constant:   base = pi_{k - lag}                                      lag steps old

"refreshed" is the inference policy of OAPL (arXiv:2602.19362), which is synchronized every `lag`
steps: 50 for mathematics (100 was stable too), about 400 for code. OAPL's own loss measures the
policy against the log-probs that were stored at sampling and needs no anchor; this one holds any
other loss to the same policy. Status: exact for the policy; the penalty that holds the policy to it
is ours. "constant" is our choice: the lag of an asynchronous generator that is always so many steps
late. With lag = 1 it is `previous`, but for a rebirth.

Public code: NeMo-RL's documentation of OAPL has the lag of 50.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from anchors.base import BASE, BaseAnchor
from rlkit.interfaces import AnchorConfig, FreezablePolicy, FrozenCopy, State
from rlkit.registry import register


class LaggedConfig(AnchorConfig):
    """Settings of the lag."""

    lag: Annotated[int, Field(ge=1)] = 50
    """Steps between two refreshes, or behind the policy."""
    form: Literal["refreshed", "constant"] = "refreshed"
    """"refreshed" holds one copy, "constant" `lag` copies."""


@register("anchor", "lagged")
class Lagged(BaseAnchor[LaggedConfig]):
    """beta KL(pi || base), with the base some steps behind; the last rebase is as far as it lags.

    The copies are kept even at beta = 0: a loss may read the base, and a schedule may raise beta.
    """

    sources = ("2602.19362",)

    def __init__(self, config: LaggedConfig | None = None) -> None:
        super().__init__(config)
        self.steps = 0
        """Steps since the last rebase."""
        self.later: list[FrozenCopy] = []
        """The policies that become the base after it, oldest first."""

    def is_read(self, name: str) -> bool:
        """Whether something reads the reference; the base stands."""
        return name == BASE or super().is_read(name)

    def number(self, name: str) -> int | None:
        """None: the base moves."""
        return None

    def before_step(self, policy: FreezablePolicy, step: int) -> None:
        """Keep the weights the step starts from; the base holds those of the first step."""
        if self.config.form == "refreshed" or self.steps == 0:
            return
        while self.later and len(self.later) + 1 >= self.config.lag:
            self.frozen[BASE] = self.later.pop(0)
        if self.config.lag == 1:
            self.take(BASE, policy)
        else:
            self.later.append(policy.freeze())

    def after_step(self, policy: FreezablePolicy, step: int, metrics: Mapping[str, float]) -> None:
        """Count the step, and refresh the base if it is time."""
        super().after_step(policy, step, metrics)
        self.steps += 1
        if self.config.form == "refreshed" and self.steps % self.config.lag == 0:
            self.take(BASE, policy)

    def rebase(self, policy: FreezablePolicy) -> None:
        """Make the current policy the base."""
        self.steps, self.later = 0, []
        super().rebase(policy)

    def close(self) -> None:
        """Let go of the base and the policies after it."""
        super().close()
        self.later = []

    def state_dict(self) -> State:
        """The base's state, the policies after it, and the steps counted."""
        later = [reference.state_dict() for reference in self.later]
        return super().state_dict() | {"steps": self.steps, "later": later}

    def restore(self, policy: FreezablePolicy, state: State) -> None:
        """Take back `state_dict()`."""
        super().restore(policy, state)
        self.steps = state["steps"]
        self.later = [policy.restore(weights) for weights in state["later"]]
