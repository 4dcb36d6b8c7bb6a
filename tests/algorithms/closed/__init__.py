"""The closed-form gradient weight and the ratio's denominator of every loss, by family."""

from tests.algorithms.closed import first, mix, near, off

FAMILIES = (first, near, mix, off)
CLOSED = {name: weights for family in FAMILIES for name, weights in family.CLOSED.items()}
DENOMINATOR = {name: policy for family in FAMILIES for name, policy in family.DENOMINATOR.items()}
