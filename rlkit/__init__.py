"""rlkit: finetune language models by reinforcement learning from data that is partly off-policy."""

from rlkit.registry import build, names, register

__all__ = ["__version__", "build", "names", "register"]
__version__ = "0.1.0"
