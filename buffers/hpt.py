"""Demonstrations in the place of groups that the policy does not solve."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from buffers.luffy import Luffy, LuffyConfig
from rlkit.batch import Group
from rlkit.registry import register


class HptConfig(LuffyConfig):
    """Settings of the switch between exploration and imitation."""

    keep_size: bool = False
    """Whether demonstrations take the places of new responses; by default all are generated, since
    they decide what is trained."""
    gate: Annotated[int, Field(ge=0)] = 0
    """Imitate the demonstration of a prompt of which at most so many responses are right; 2 of 8
    for the paper's Llama."""
    solved: float = 1.0
    """The reward from which on a response is right."""


def switched(group: Group, gate: int, solved: float) -> Group:
    """The group's demonstrations if at most `gate` of its own responses are right, else those."""
    own = [sample for sample in group.samples if sample.source != "expert"]
    shown = [sample for sample in group.samples if sample.source == "expert"]
    right = sum(sample.reward >= solved for sample in own)
    return Group(prompt=group.prompt, samples=shown if shown and right <= gate else own)


@register("buffer", "hpt")
class Hpt(Luffy[HptConfig]):
    """HPT's switch: a group that solved at most `gate` becomes its demonstration, the rest RL.

    Where every response is wrong, group-relative advantages are all zero; the demonstration teaches
    there, and nowhere else. A prompt without a demonstration stays as it is. Source: HPT
    (arXiv:2509.04419). Status: exact for one demonstration.

    Public code: TsinghuaC3I/Unify-Post-Training, unify_strategy="switch" with switch_gate 0. Its
    third way, off-policy RL on the demonstration between two gates, is not offered.
    """

    sources = ("2509.04419",)
    caches = ("imitated",)

    def __init__(self, config: HptConfig | None = None) -> None:
        super().__init__(config)
        self.imitated = 0.0
        """Share of the last step's groups that became demonstrations."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups, each its own responses or its demonstrations."""
        groups = [switched(group, self.config.gate, self.config.solved) for group in fresh]
        taught = [g.samples[0].source == "expert" for g in groups if g.samples]
        self.imitated = sum(taught) / len(taught) if taught else 0.0
        return groups

    def stats(self) -> dict[str, float]:
        """Share of the groups that became demonstrations."""
        return {"imitated": self.imitated}
