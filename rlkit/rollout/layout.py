"""The layout of a run's forwards: the one that wastes least and gives a model's own log-probs.

Packing needs attention that keeps sequences of one row apart. Whether a model's does is tried at
the start: layers with states of their own, windows that are kept elsewhere, and whatever else an
architecture does, show in the log-probs. Status: our choice.
"""

from __future__ import annotations

import torch

from rlkit.config.run import Packing
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models import shared_prefix
from rlkit.models.attention import implementations
from rlkit.models.memory import is_out_of_memory
from rlkit.models.policy import Policy
from rlkit.models.rows import Layout
from rlkit.ops import stream_rng
from rlkit.rollout.probe import excess, largest, ordinary_tokens

PROMPTS = (4, 3, 4)
"""Tokens of the probe's prompts."""
RESPONSES = ((3, 7), (2,), (6, 1, 3))
"""Tokens of the responses to each."""
FLASH = "flash_attention"
"""How the attention functions begin that tell packed sequences apart by their positions."""
KNOWN = {"full_attention", "sliding_attention"}
"""Kinds of layers whose attention packing knows."""


def choose_layout(
    policy: Policy, asked: Packing, seed: int, saved: Layout | None = None
) -> str | None:
    """Give the policy its layout; returns what the user should know of it, if anything.

    A run that continues keeps the `saved` one. Every rank must call it. Raises UserError if the
    layout asked for is not exact for this model.
    """
    policy.layout = "padded"
    if asked == "padded" or (asked == "auto" and saved == "padded"):
        return None
    if asked == "auto" and saved is not None and saved == likely(policy):
        policy.layout = saved
        return None
    wanted = likely(policy) if asked == "auto" else asked
    reason = "its attention cannot be packed" if wanted is None else refused(policy, wanted, seed)
    reason = next((r for r in policy.processes.all_gather(reason) if r is not None), None)
    if reason is None and wanted is not None:
        policy.layout = wanted
        return None
    if asked == "auto":
        name = type(policy.model).__name__
        return f"Sequences are padded, since those of a {name} cannot be packed: {reason}."
    raise UserError(
        f"train.packing={asked} is not exact for a {type(policy.model).__name__}: {reason}; "
        "use train.packing=auto"
    )


def likely(policy: Policy) -> Layout | None:
    """The layout that fits a model's attention function, if one does."""
    if shared_prefix.base_of(policy.model) is not None:
        return "shared_prefix"
    configured = implementations(policy.model)
    flash = bool(configured) and all(str(name).startswith(FLASH) for name in configured)
    return "packed" if flash else None


def refused(policy: Policy, layout: Layout, seed: int) -> str | None:
    """Why a layout is not exact for a model; None if it is."""
    if layout == "shared_prefix" and shared_prefix.base_of(policy.model) is None:
        return f"model.attn_implementation must be {' or '.join(shared_prefix.BASES)}"
    windows: list[int | None] = []

    def compared(attempt: int) -> tuple[float, Tokens]:
        tokens = drawn(policy, seed, attempt)
        rows = range(len(tokens.prompt))
        alone = [policy.logp(tokens.rows(torch.tensor([row])))[0] for row in rows]
        policy.layout = layout
        try:
            with shared_prefix.watched(windows):
                together = policy.logp(tokens)
        finally:
            policy.layout = "padded"
        return largest(together, alone), tokens

    try:
        with policy.full_weights():
            found = excess(policy, compared)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        return f"its forward refuses it ({str(error).splitlines()[0] if str(error) else error!r})"
    if found is not None:
        return f"its log-probs change by {found:.2g} nats"
    return hidden_windows(policy, windows) if layout == "shared_prefix" else None


def hidden_windows(policy: Policy, windows: list[int | None]) -> str | None:
    """Why the windows of a model's layers cannot be kept; short sequences would not show them."""
    config = policy.model.config.get_text_config(decoder=True)
    kinds: list[str] = list(getattr(config, "layer_types", None) or ())
    if unknown := sorted(set(kinds) - KNOWN):
        return f"it has layers of the kind {unknown[0]}"
    slides = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", 0)
    layers = config.num_hidden_layers
    expected = kinds.count("sliding_attention") if kinds else layers * bool(slides)
    if sum(window is not None for window in windows[:layers]) != expected:
        return "its layers do not say how far they see"
    if getattr(config, "attention_chunk_size", None) and not kinds:
        return "its layers see chunks"
    return None


def drawn(policy: Policy, seed: int, attempt: int) -> Tokens:
    """Random prompts and responses; the last prompt has the length of the first."""
    rng, allowed = stream_rng(seed, "probe/layout", attempt), ordinary_tokens(policy)
    prompts, responses = [], []
    for size, sizes in zip(PROMPTS, RESPONSES, strict=True):
        prompt = torch.from_numpy(rng.choice(allowed, size))
        prompts += [prompt] * len(sizes)
        responses += [torch.from_numpy(rng.choice(allowed, length)) for length in sizes]
    order = rng.permutation(len(prompts)).tolist()
    return Tokens.of([prompts[i] for i in order], [responses[i] for i in order])
