"""Held to a teacher: another model, which never changes.

    A_t = log pi_teacher - log pi                       read by advantage=mopd
    beta KL(pi || pi_teacher)                           a penalty beside it, off by default

Any causal model by name or folder that reads the policy's tokens, such as a larger one of the same
family or a checkpoint of an earlier run: MOPD's teachers (arXiv:2601.02780) are earlier runs, each
specialized in a domain. Status: adapted; the paper routes each prompt to the teacher of its domain,
here there is one.

Public code: NeMo-RL serves teachers from workers of their own and routes by environment; slime asks
an inference engine, or loads the weights into the trainer, as here. Neither engine's log-probs are
used here: both models are read by the same forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from rlkit.errors import UserError
from rlkit.interfaces import (
    AnchorConfig,
    AnchorPolicy,
    FixedModel,
    FreezablePolicy,
    ModelSource,
    Reference,
    RunContext,
    State,
)
from rlkit.registry import register

TEACHER = "teacher"


class TeacherConfig(AnchorConfig):
    """Settings of the teacher; no penalty by default."""

    beta: Annotated[float, Field(ge=0)] = 0.0
    path: str | None = None
    """The teacher's Hugging Face name or folder. Its tokenizer must be the policy's: the same
    tokens with the same ids. null = with the embedded model, the model before training; other
    models need a teacher."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """dtype of its weights and forwards; null = model.dtype and model.autocast."""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] | None = None  # type: ignore[assignment]  # wider
    """Where it is kept. cpu = in host memory, from where each layer visits the policy's device for
    a forward; cuda:N = on that GPU, where it also computes; null = on the policy's device."""


@register("anchor", "teacher")
class Teacher(AnchorPolicy[TeacherConfig]):
    """The reference `teacher`: a frozen model of its own, with its own dtype and device.

    Its log-probs are computed like the policy's, without full logits, at `rollout.temperature`, and
    kept with replayed responses. Checkpoints do not hold it: it is loaded from its folder again. A
    rebirth leaves it as it is.
    """

    sources = ("2601.02780",)

    def __init__(self, config: TeacherConfig | None = None) -> None:
        super().__init__(config)
        self.loaded: FixedModel | None = None
        """The model of `path`."""
        self.first: Reference | None = None
        """What takes its place without a path: the policy that training started from."""

    def open(self, context: RunContext) -> None:
        """Load the teacher. Raises UserError if there is none, or one of another tokenizer."""
        super().open(context)
        c = self.config
        self.loaded = context.open_model(
            ModelSource(path=c.path, setting="anchor.path", dtype=c.dtype, device=c.device)
        )

    def weights(self, step: int) -> Mapping[str, float]:
        """All on the teacher."""
        return {TEACHER: 1.0}

    def reference(self, name: str) -> Reference | None:
        """The teacher."""
        if name != TEACHER:
            raise KeyError(name)
        return self.loaded or self.first

    def number(self, name: str) -> int | None:
        """The teacher's own, by its weights: a run that goes on with another one scores anew."""
        return 0 if self.loaded is None else self.loaded.number

    def rebase(self, policy: FreezablePolicy) -> None:
        """Before the first step, take the policy in place of a teacher that is not given."""
        if self.loaded is None and self.first is None:
            self.first = policy.freeze()

    def close(self) -> None:
        """Let go of the teacher."""
        self.loaded = self.first = None

    def state_dict(self) -> State:
        """The weights, unless they are in a folder of their own; and the factor of `target_kl`."""
        own = None if self.first is None else self.first.state_dict()
        return {"factor": self.factor, "first": own}

    def restore(self, policy: FreezablePolicy, state: State) -> None:
        """Take both back. Raises UserError if the run had a teacher, and now has none."""
        self.factor, own = state["factor"], state["first"]
        if own is None and self.loaded is None:
            raise UserError(
                "this run was trained with a teacher, and anchor.path=null names none; go on with "
                "anchor.path=<its folder>, or another teacher's"
            )
        self.first = policy.restore(own) if own is not None and self.loaded is None else None
