"""rlkit: finetune language models by reinforcement learning from data that is partly off-policy."""

from rlkit.interrupts import quiet_while_importing

quiet_while_importing()  # before anything that takes long to import

from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

from rlkit.errors import UserError
from rlkit.registry import build, names, register

if TYPE_CHECKING:
    from rlkit.composition.api import TrainedRun, train
    from rlkit.interfaces import Reward

__all__ = [
    "Reward",
    "TrainedRun",
    "UserError",
    "__version__",
    "build",
    "names",
    "register",
    "train",
]
__version__ = "0.1.0"


def _refuse_namesake() -> None:
    """Refuse to run beside PyPI's `rlkit`, another project that installs into this same package."""
    try:
        other = distribution("rlkit")
    except PackageNotFoundError:
        return
    raise ImportError(
        f"another project called rlkit (version {other.version}) is installed beside rlkit-rft; "
        "both are imported as `rlkit`: pip uninstall rlkit, then reinstall rlkit-rft"
    )


_refuse_namesake()

_LATER = {
    "Reward": "rlkit.interfaces",
    "TrainedRun": "rlkit.composition.api",
    "train": "rlkit.composition.api",
}
"""Names whose modules take seconds to import; they are imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'rlkit' has no attribute '{name}'")
    return getattr(import_module(_LATER[name]), name)
