"""Training with gradients and moments divided over the processes: DeepSpeed's ZeRO 1 and 2."""

from __future__ import annotations

import importlib
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlkit.distributed.learner import Learner
from rlkit.distributed.processes import Several
from rlkit.errors import UserError
from rlkit.interfaces import State

STAGES = ("1", "2")


def deepspeed() -> Any:
    """The package. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("deepspeed")
    except ImportError as error:
        raise UserError(
            "the launch asks for DeepSpeed, which is not installed: pip install deepspeed, or use "
            "configs/accelerate/fsdp2.yaml"
        ) from error


class Zero(Several):
    """One of several processes with a part of the gradients and moments each.

    Weights are whole in every process, but DeepSpeed's own: they are copied, not shared.
    """

    divides_weights = True
    rules_precision = True

    def __init__(self, *, cpu: bool) -> None:
        self.stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
        if self.stage not in STAGES:
            raise UserError(
                f"DeepSpeed with ZeRO stage {self.stage} is not supported; use stage 2, or "
                "configs/accelerate/fsdp2.yaml, which divides the weights too"
            )
        deepspeed()
        super().__init__(cpu=cpu)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module itself, until its optimiser is there."""
        return module

    def learner(self, module: nn.Module, trained: nn.Module, optimizer: Optimizer) -> Learner:
        """What updates a module; an engine it had before is taken apart."""
        exact = masters(module) if trained is not module else {}
        if trained is not module:
            trained.destroy()  # type: ignore[operator]
        learner = ZeroLearner(module, self._engine(module, optimizer), optimizer, self.count)
        set_masters(module, exact)
        return learner

    def _engine(self, module: nn.Module, optimizer: Optimizer) -> Any:
        dtype = next(module.parameters()).dtype
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 1.0,  # set before each step
            "zero_optimization": {"stage": int(self.stage)},
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": dtype == torch.bfloat16},
        }
        package = deepspeed()
        package.init_distributed(dist_backend=torch.distributed.get_backend())
        engine, *_ = package.initialize(model=module, optimizer=optimizer, config=config)
        return engine


class ZeroLearner(Learner):
    """An update that DeepSpeed's engine carries out."""

    def __init__(self, module: nn.Module, engine: Any, inner: Optimizer, count: int) -> None:
        super().__init__(module, engine, engine.optimizer)
        self.engine, self.inner, self.count = engine, inner, count

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward of a micro-batch; they meet in the last one."""
        self.engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, value: Tensor) -> None:
        """Back-propagate this process's part of a loss that is the sum of all parts."""
        self.engine.backward(value * self.count)

    def clip(self, max_norm: float) -> float:
        """The norm of the gradient, which the step scales down to `max_norm`."""
        zero: Any = self.optimizer
        zero.clip_grad = max_norm
        return float(zero.scaled_global_norm())

    def step(self) -> None:
        """One step of the optimiser."""
        self.engine.step()

    def drop(self) -> None:
        """Forget the gradient."""
        zero: Any = self.optimizer
        zero.zero_grad(set_to_none=True)
        for number in zero.averaged_gradients:
            zero.averaged_gradients[number] = None

    def state_dict(self, *, kept: bool = True) -> State:
        """The optimiser's state as that of the undivided one, and the weights in float32."""
        entries = list(self.inner.state.values())
        state: State = {}
        for number, parameter in enumerate(self.module.parameters() if entries else ()):
            state[str(number)] = {
                name: value if value.dim() == 0 else moment(parameter, name, kept=kept)
                for name, value in entries[0].items()
            }
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.inner.param_groups]
        groups[0]["params"] = list(range(len(list(self.module.parameters()))))
        return {"state": state, "param_groups": groups, "masters": masters(self.module, kept=kept)}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        set_masters(self.module, state.get("masters", {}))
        if not state["state"]:
            return
        zero: Any = self.optimizer
        (flat,) = (p for group in self.inner.param_groups for p in group["params"])
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
    """DeepSpeed's own ways to the pieces of a divided tensor."""
    return importlib.import_module("deepspeed.utils")


def moment(parameter: nn.Parameter, name: str, *, kept: bool) -> Tensor | None:
    """A moment of a parameter in one piece, on the CPU; all processes take part."""
    whole: Tensor = tools().safe_get_full_optimizer_state(parameter, name)
    return whole.cpu() if kept else None


def masters(module: nn.Module, *, kept: bool = True) -> State:
    """The float32 weights that DeepSpeed updates, where the module's are of another type."""
    out: State = {}
    for number, parameter in enumerate(module.parameters()):
        if parameter.dtype != torch.float32:
            whole = tools().safe_get_full_fp32_param(parameter)
            out |= {str(number): whole.cpu()} if kept else {}
    return out


def set_masters(module: nn.Module, state: State) -> None:
    """Take back what `masters` gave."""
    for number, parameter in enumerate(module.parameters() if state else ()):
        tools().safe_set_full_fp32_param(parameter, state[str(number)].to(parameter.device))
