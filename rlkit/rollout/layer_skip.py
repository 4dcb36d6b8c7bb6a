"""Sampling with some of the policy's layers skipped, drawn anew for every batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from torch.nn import ModuleList

from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.ops import stream_rng, stream_seed
from rlkit.registry import register
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.probe import check_engine

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SEED = "layer_skip_seed"
"""The key of `Sample.extras` that holds the seed of the layers its batch was generated without."""
NOT_BITS = 31
"""Bits of a stream's seed that are dropped: 32 are left, which any float64 holds."""


class LayerSkipConfig(HFConfig):
    """Settings of the engine that skips layers."""

    skip: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all layers that each batch skips, at least one layer; 0 = the whole policy, as
    rollout=hf."""
    keep_first: Annotated[int, Field(ge=0)] | None = None
    """This many layers at the beginning are never skipped; null = 1, or 0 if the model has too few
    layers for that (our choice)."""
    keep_last: Annotated[int, Field(ge=0)] | None = None
    """This many layers at the end are never skipped; null as for keep_first (our choice)."""
    continues: ClassVar[bool] = False  # a sample has one seed, so no second batch may continue it
    samples_policy: ClassVar[bool] = False


def skipped_layers(layers: int, config: LayerSkipConfig, seed: int) -> list[int]:
    """Which of `layers` layers the batch of a seed skips.

    Each subset of the layers that may be skipped is equally likely. Raises UserError if there are
    too few of them.
    """
    count = max(1, round(config.skip * layers)) if config.skip else 0
    end = 1 if count <= layers - 2 else 0
    first = end if config.keep_first is None else config.keep_first
    last = end if config.keep_last is None else config.keep_last
    free = layers - first - last
    if count > min(free, layers - 1):
        raise UserError(
            f"rollout.skip={config.skip:g} skips {count} of the model's {layers} layers, but with "
            f"rollout.keep_first={first} and rollout.keep_last={last} only "
            f"{max(0, min(free, layers - 1))} may be; lower one of them"
        )
    order = stream_rng(seed, "layer_skip/layers").permutation(free)
    return sorted(first + int(place) for place in order[:count])


def decoder_layers(model: PreTrainedModel) -> ModuleList:
    """The list of a model's layers. Raises UserError if its layers cannot be skipped."""
    config = model.config.get_text_config(decoder=True)
    # models without these fields have neither
    tied = (
        getattr(config, "num_kv_shared_layers", 0)
        or getattr(config, "is_heterogeneous", False)
        or _kinds_by_place(config)
    )
    for module in model.modules():
        if isinstance(module, ModuleList) and len(module) == config.num_hidden_layers and not tied:
            return module
    raise UserError(
        f"rollout=layer_skip cannot leave out layers of a {type(model).__name__}; use rollout=hf"
    )


def _kinds_by_place(config: PreTrainedConfig) -> bool:
    """Whether a model has several kinds of layers, and which is which follows from their places."""
    name = config.attribute_map.get("layer_types", "layer_types")
    given = getattr(type(config), name, None)
    return isinstance(given, property) and given.fset is None and len(set(config.layer_types)) > 1


def reduced(model: PreTrainedModel, skipped: Sequence[int]) -> PreTrainedModel:
    """The model without some layers, sharing its weights; the model itself is left as it is.

    A layer adds to the residual stream, so leaving one out is the identity in its place. The rest
    are renumbered, since a key-value cache is indexed by layer and asks the first layer of a kind
    for its length.
    """
    weights = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    smaller = copy.deepcopy(model, weights)
    layers = decoder_layers(smaller)
    config = smaller.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None)  # of models with several kinds of layers
    for number in sorted(skipped, reverse=True):
        del layers[number]
    for number, layer in enumerate(layers):
        for module in layer.modules():
            if "layer_idx" in vars(module):
                vars(module)["layer_idx"] = number
    config.num_hidden_layers = len(layers)
    left = [kind for number, kind in enumerate(kinds or ()) if number not in skipped]
    if kinds is not None and config.layer_types != left:
        config.layer_types = left
    return smaller


@register("rollout", "layer_skip")
class LayerSkipRollout(HFRollout[LayerSkipConfig]):
    """The policy generates with a random subset S of its layers skipped, another for every batch.

    mu_k = pi_k without the layers S_k, |S_k| = max(1, round(skip * layers)). Behavior log-probs
    are those of mu_k, so fresh samples are off-policy: the trainer computes prox_logp, and
    `off_policy/engine_kl` is KL(mu_k || pi_k). S_k follows from the stream of the call, so each
    process that shares the requests draws the same, as a resumed run does; its seed is kept with
    each sample (`layer_skip_seed`). Evaluations and greedy responses use the whole policy. Source:
    Nested-ReFT (arXiv:2508.10123). Status: adapted: a subset of the policy's layers, drawn anew for
    every batch, is the paper's; the share, the kept ends and the whole policy for greedy baselines
    are our choice.
    """

    copies_model = True

    @property
    def matches_trainer(self) -> bool:
        """Only the whole policy's log-probs are the trainer's own."""
        return self.config.skip == 0

    def start(self, policy: Policy, seed: int) -> None:
        """Share the policy's weights, or copy them; check that this many layers can be skipped."""
        config = self.config
        skipped = (
            skipped_layers(len(decoder_layers(policy.model)), config, seed) if config.skip else []
        )
        super().start(policy, seed)
        if skipped:
            part, scorer = copy.copy(self), copy.copy(policy)
            part.model = scorer.model = reduced(self.model, skipped)
            check_engine(part, scorer)
            self.shares_prompts &= part.shares_prompts

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request, in order."""
        name, *index = call.stream
        if not self.config.skip or call.greedy or call.evaluates:
            return super().generate(call)
        seed = stream_seed(self.seed, f"layer_skip/{name}", *index) >> NOT_BITS
        whole = self.model
        depth = len(decoder_layers(whole))
        self.model = reduced(whole, skipped_layers(depth, self.config, seed))
        try:
            found = super().generate(call)
        finally:
            self.model = whole
        return [[_with_seed(answer, seed) for answer in answers] for answers in found]


def _with_seed(answer: Generation, seed: int) -> Generation:
    return replace(answer, extras={**answer.extras, SEED: float(seed)})
