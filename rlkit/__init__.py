"""rlkit: finetune language models by reinforcement learning from data that is partly off-policy."""

from importlib.metadata import PackageNotFoundError, distribution

from rlkit.registry import build, names, register

__all__ = ["__version__", "build", "names", "register"]
__version__ = "0.1.0"


def _refuse_namesake() -> None:
    """PyPI's `rlkit` is another project, whose files would lie in this same package."""
    try:
        other = distribution("rlkit")
    except PackageNotFoundError:
        return
    raise ImportError(
        f"another project called rlkit (version {other.version}) is installed beside rlkit-rft; "
        "both are imported as `rlkit`: pip uninstall rlkit, then reinstall rlkit-rft"
    )


_refuse_namesake()
