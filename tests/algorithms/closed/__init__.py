"""The closed-form gradient weight and the ratio's denominator of every loss.

One module for each file of algorithms/, with `CLOSED` and `DENOMINATOR` by the names of its losses.
"""

from importlib import import_module
from pkgutil import iter_modules

from tests.algorithms.closed.base import Weights

CLOSED: dict[str, Weights] = {}
DENOMINATOR: dict[str, str] = {}
for module in iter_modules(__path__, __name__ + "."):
    if not module.name.endswith(".base"):
        table = import_module(module.name)
        CLOSED |= table.CLOSED
        DENOMINATOR |= table.DENOMINATOR
