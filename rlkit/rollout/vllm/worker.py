"""What runs inside a vLLM worker: weights in, and log-probs at the rollout's temperature.

vLLM mixes the class into its own worker (`--worker-extension-cls`) and calls it by name, also over
HTTP. Nothing here is imported from vLLM before a worker runs it.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch.nn.functional import linear

EXTENSION = "rlkit.rollout.vllm.worker.RlkitWorker"
"""How vLLM finds the class."""
PROBE_ROWS = 4


class RlkitWorker:
    """The calls that rlkit makes on a vLLM worker."""

    model_runner: Any
    rlkit_scale: float | None = None
    """The model's original logit scale."""

    def rlkit_temperature(self, temperature: float) -> None:
        """Divide the model's logits by the temperature from now on.

        Requests are then sampled at temperature 1. So both the log-probs of sampled tokens and
        those of a scored prompt are at the rollout's temperature and before top_p and top_k.
        """
        processor = self.model_runner.get_model().logits_processor
        if self.rlkit_scale is None:
            self.rlkit_scale = float(processor.scale)
        processor.scale = self.rlkit_scale / temperature

    def rlkit_load(self, folder: str) -> None:
        """Load the weights of a folder, layer by layer."""
        runner: Any = self
        runner.reload_weights(weights_path=folder)
        self.rlkit_rebuild_head()

    def rlkit_rebuild_head(self) -> None:
        """Pack the LM head again.

        On the CPU vLLM multiplies by a packed copy of it. A reload packs the layers it loaded, and
        a head that is tied to the embedding is not among them.
        """
        head = self.model_runner.get_model().lm_head
        head.quant_method.process_weights_after_loading(head)

    @torch.no_grad()
    def rlkit_stale_head(self) -> float:
        """The largest difference between the LM head's product and one with its weights."""
        head = self.model_runner.get_model().lm_head
        layer: Any = importlib.import_module("vllm.model_executor.layers.vocab_parallel_embedding")
        if not isinstance(head.quant_method, layer.UnquantizedEmbeddingMethod):
            return 0.0
        weight = head.weight
        rows = torch.linspace(-1, 1, PROBE_ROWS * weight.shape[1], dtype=torch.float32)
        rows = rows.sin().view(PROBE_ROWS, -1).to(weight)
        return float((head.quant_method.apply(head, rows) - linear(rows, weight)).abs().max())
