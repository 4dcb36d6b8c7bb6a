"""A value function: a linear head on a copy of the policy's backbone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlkit.interfaces import Tokens
from rlkit.models.lora import has_adapter, without_adapters
from rlkit.models.prompt_head import width_of
from rlkit.models.rows import Layout, model_rows
from rlkit.models.tokens import autocast_to

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Critic(nn.Module):
    """V(s_t) of each response token: the value of the state before it, from its last hidden state.

    The backbone starts as the policy's, with any adapters merged, and is trained in full. The head
    starts at zero, so every value does. A critic that `sees_age` is
    V(s_t, a) = V(s_t) + log(1 + a) u(s_t), with a second linear head u and the age a of the weights
    that sampled the response: fresh ones have the value they have without it.
    """

    def __init__(
        self,
        policy_model: PreTrainedModel,
        autocast: torch.dtype | None = None,
        layout: Layout = "padded",
        *,
        sees_age: bool = False,
    ) -> None:
        super().__init__()
        self.sees_age = sees_age
        self.autocast = autocast
        self.layout: Layout = layout
        model: Any = policy_model
        if has_adapter(model):
            self.backbone = without_adapters(model.get_base_model().base_model)
        else:
            self.backbone = copy.deepcopy(model.base_model)
        self.backbone.requires_grad_(True)
        self.head = nn.Linear(width_of(policy_model), 2 if sees_age else 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.head.to(device=policy_model.device, dtype=torch.float32)

    def get_output_embeddings(self) -> nn.Module:
        """The output layer, by the name it has in a language model."""
        return self.head

    def forward(self, tokens: Tokens) -> Tensor:
        """[B, T] float32; zeros where padded."""
        device = self.head.weight.device
        rows = model_rows(tokens, self.layout, device)
        with rows.attention(self.backbone), autocast_to(self.autocast, device):
            hidden = self.backbone(**rows.inputs, use_cache=False).last_hidden_state
        states = hidden.flatten(0, 1).index_select(0, rows.at)
        value, *slope = self.head(states.float()).unbind(-1)
        if self.sees_age:
            age = torch.log1p(tokens.age.float()).to(device)
            value = value + age[rows.places // rows.shape[1]] * slope[0]
        return rows.spread(value)
