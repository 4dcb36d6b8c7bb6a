"""DeepSpeed ZeRO 1 and 2: gradients and optimizer state sharded over the ranks."""

from __future__ import annotations

import importlib
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlkit.distributed.learner import Learner
from rlkit.distributed.processes import MultiProcess
from rlkit.errors import UserError
from rlkit.interfaces import State

STAGES = ("1", "2")


def deepspeed() -> Any:
    """The package. Raises UserError if it is not installed."""
    try:
        return importlib.import_module("deepspeed")
    except ImportError as error:
        raise UserError(
            "the launch asks for DeepSpeed, which is not installed: pip install deepspeed, or use "
            "configs/accelerate/fsdp2.yaml"
        ) from error


class DeepSpeed(MultiProcess):
    """A rank with a shard of the gradients and moments.

    Every rank has the full weights, but DeepSpeed replaces them: they are copied, not aliased.
    """

    shards_weights = True
    owns_precision = True

    def __init__(self, *, cpu: bool) -> None:
        self.stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
        if self.stage not in STAGES:
            raise UserError(
                f"DeepSpeed with ZeRO stage {self.stage} is not supported; use stage 2, or "
                "configs/accelerate/fsdp2.yaml, which shards the weights too"
            )
        deepspeed()
        super().__init__(cpu=cpu)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module itself: the engine is made with the optimizer."""
        return module

    def learner(
        self,
        module: nn.Module,
        wrapped: nn.Module,
        optimizer: Optimizer,
        previous: Learner | None = None,
    ) -> Learner:
        """A new engine for the module, with the weights of the previous learner's engine."""
        exact: State = {}
        if isinstance(previous, DeepSpeedLearner):
            exact = masters(module)
            previous.engine.destroy()
        engine = self._engine(module, optimizer)
        learner = DeepSpeedLearner(module, engine, optimizer, self.world_size)
        set_masters(module, exact)
        return learner

    def _engine(self, module: nn.Module, optimizer: Optimizer) -> Any:
        half = next(module.parameters()).dtype == torch.bfloat16
        config = settings(self.stage, half=half)
        package = deepspeed()
        package.init_distributed(dist_backend=torch.distributed.get_backend())
        engine, *_ = package.initialize(model=module, optimizer=optimizer, config=config)
        return engine


def settings(stage: str, *, half: bool) -> dict[str, Any]:
    """DeepSpeed's configuration for a ZeRO stage and, if `half`, weights in bfloat16.

    ZeRO 2 then adds micro-batches up in float32; ZeRO 1 would take another optimizer for that.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,  # set before each step
        "zero_optimization": {"stage": int(stage)},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": half},
        "data_types": {"grad_accum_dtype": "fp32"} if half and stage == "2" else {},
    }


class DeepSpeedLearner(Learner):
    """Backward, clipping and optimizer step by DeepSpeed's engine."""

    def __init__(self, module: nn.Module, engine: Any, inner: Optimizer, world_size: int) -> None:
        # no masters: DeepSpeed keeps its own
        self.module, self.wrapped, self.optimizer = module, engine, engine.optimizer
        self.engine, self.inner, self.world_size = engine, inner, world_size

    @property
    def scale(self) -> int:
        """What `backward` multiplies by."""
        return self.world_size

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Context of one micro-batch's forward and backward; the last one reduces gradients."""
        self.engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, value: Tensor) -> None:
        """Back-propagate this rank's part of a loss that is the sum over the ranks."""
        self.engine.backward(value * self.scale)

    def clip(self, max_norm: float) -> float:
        """The norm of the gradient, which the step scales down to `max_norm`."""
        zero: Any = self.optimizer
        zero.clip_grad = max_norm
        return float(zero.scaled_global_norm())

    def step(self) -> None:
        """One optimizer step."""
        self.engine.step()

    def zero_grad(self) -> None:
        """Clear the gradient."""
        zero: Any = self.optimizer
        zero.zero_grad(set_to_none=True)
        for number in zero.averaged_gradients:
            zero.averaged_gradients[number] = None

    def state_dict(self, *, keep: bool = True) -> State:
        """The optimizer's state as an unsharded one would save it, and the weights in float32."""
        entries = list(self.inner.state.values())
        state: State = {}
        for number, parameter in enumerate(self.module.parameters() if entries else ()):
            state[str(number)] = {
                name: value if value.dim() == 0 else moment(parameter, name, keep=keep)
                for name, value in entries[0].items()
            }
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.inner.param_groups]
        groups[0]["params"] = list(range(len(list(self.module.parameters()))))
        return {"state": state, "param_groups": groups, "masters": masters(self.module, keep=keep)}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
        set_masters(self.module, state.get("masters", {}))
        if not state["state"]:
            return
        zero: Any = self.optimizer
        for flat in (p for group in self.inner.param_groups for p in group["params"]):
            self.inner.state[flat] = {
                name: value.clone() if value.dim() == 0 else torch.zeros_like(flat)
                for name, value in state["state"]["0"].items()
            }
        zero._lazy_init_hp_params_optimizer_state()
        for number, parameter in enumerate(self.module.parameters()):
            for name, value in state["state"][str(number)].items():
                if value.dim() > 0:
                    moved = value.to(parameter.device)
                    tools().safe_set_full_optimizer_state(parameter, moved, name)


def tools() -> Any:
    """DeepSpeed's utilities to gather and set shards."""
    return importlib.import_module("deepspeed.utils")


def moment(parameter: nn.Parameter, name: str, *, keep: bool) -> Tensor | None:
    """A parameter's moment, gathered in full on the CPU; every rank must call it."""
    whole: Tensor = tools().safe_get_full_optimizer_state(parameter, name)
    return whole.cpu() if keep else None


def masters(module: nn.Module, *, keep: bool = True) -> State:
    """The float32 weights that DeepSpeed updates, if the module's weights have another dtype."""
    out: State = {}
    for number, parameter in enumerate(module.parameters()):
        if parameter.dtype != torch.float32:
            whole = tools().safe_get_full_fp32_param(parameter)
            out |= {str(number): whole.cpu()} if keep else {}
    return out


def set_masters(module: nn.Module, state: State) -> None:
    """Restore what `masters` returned."""
    for number, parameter in enumerate(module.parameters() if state else ()):
        tools().safe_set_full_fp32_param(parameter, state[str(number)].to(parameter.device))
