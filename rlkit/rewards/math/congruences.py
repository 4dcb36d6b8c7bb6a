r"""Classes of residues: x \equiv 3 \pmod 7."""

from __future__ import annotations

from collections.abc import Sequence

from rlkit.rewards.math.expression import expression
from rlkit.rewards.math.form import Form
from rlkit.rewards.math.tokens import Unread, split

MOD = r"\pmod"


def read_congruence(tokens: list[str]) -> tuple[list[str], Form]:
    r"""The tokens of the name before \equiv, and the residue classes behind it.

    A residue is reduced, so that 10 mod 7 is 3 mod 7. Raises Unread for several moduli.
    """
    at = tokens.index(MOD)
    modulus = ungrouped(tokens[at + 1 :])
    name, *residues = split(tokens[:at], (r"\equiv",))
    if len(residues) > 1 or not modulus or MOD in modulus:
        raise Unread("congruence")
    listed = split(residues[0] if residues else name, (",", r"\and", r"\or"))
    classes = [residue_class(part, modulus) for part in listed if part]
    form = classes[0] if len(classes) == 1 else Form(kind="list", items=tuple(classes))
    return (name if residues else []), form


def residue_class(tokens: Sequence[str], modulus: list[str]) -> Form:
    """The class of one residue."""
    value, m = expression(list(tokens)), expression(modulus)
    if value.is_Integer and m.is_Integer and m > 0:
        value = value % m
    return Form(kind="residue", value=value, unit=str(m))


def ungrouped(tokens: list[str]) -> list[str]:
    """The tokens without braces around them."""
    return tokens[1:-1] if tokens[:1] == ["{"] and tokens[-1:] == ["}"] else tokens
