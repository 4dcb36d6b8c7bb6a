"""A pretend CUDA device on a CPU build of torch: it refuses what CUDA refuses, and counts waits.

A tensor "on the device" is a CPU tensor with a tag. A dispatch mode raises `DeviceMix` where CUDA
would refuse (operands on two devices, indices on the device into a CPU tensor, ...), and counts by
line of source what makes the host wait for the device (item, nonzero, boolean indexing, copies to
the CPU, ...) and what is copied to it.

It skips on a machine with CUDA, whose autograd cannot work beside it: test_gpu.py is for that.
Kernels are the CPU's: missing CUDA kernels, streams, memory and NCCL are not tested, and attention
must be eager.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

from rlkit.composition import checks
from rlkit.models import load

if torch.cuda.is_available():
    pytest.skip("pretends that there is a GPU, and there is one", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("rlkit", "algorithms", "anchors", "buffers", "schedules")
SOURCES = tuple(f"{ROOT}/{name}/" for name in PACKAGES)
NAME = "pretend"
CPU = torch.device("cpu")
aten = torch.ops.aten


class DeviceMix(RuntimeError):
    """What CUDA would refuse."""


class Backend(backend_registration._DummyBackendModule):
    """What torch asks about a kind of device. It has no generator: its kernels draw from the CPU's.

    Torch's autograd counts devices at its first backward, so it must know of this one before: when
    pytest imports this file. Outside `pretending` no tensor can be on it.
    """

    def is_available(self) -> bool:
        return len(RUNNING) > 1

    def get_rng_state(self, *_: Any) -> Tensor:
        return torch.zeros(0)

    def set_rng_state(self, *_: Any) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def is_autocast_available(self) -> bool:
        return True


backend_registration._setup_privateuseone_for_python_backend(NAME, Backend())
DEVICE = torch.device(NAME, 0)


class Tagged(torch.Tensor):
    """A CPU tensor that says that it is on the device."""

    elem: Tensor
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, elem: Tensor) -> Tagged:
        assert not isinstance(elem, Tagged)
        self = torch.Tensor._make_subclass(cls, elem.detach(), False, dispatch_device=True)
        self.elem = elem.detach()
        return self

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return RUNNING[-1].run(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        new: Any = self.detach().clone()
        if getattr(self, "_is_param", False):
            new = torch.nn.Parameter(new, self.requires_grad)
        else:
            new.requires_grad_(self.requires_grad)
        memo[id(self)] = new
        return new

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, dtype: Any = None, *_: Any, **__: Any) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=DEVICE)

    def numpy(self, **_: Any) -> Any:
        raise DeviceMix(f"{place()}: numpy() of a tensor on the device")

    __array__: Any = numpy

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Tagged({tuple(self.elem.shape)}, {self.elem.dtype})"


def place() -> str:
    """The line of rlkit that is being run, "path:line function"."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(SOURCES):
            path = Path(frame.f_code.co_filename).relative_to(ROOT)
            return f"{path}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "outside rlkit"


COPIES = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Tensor}
READS = {aten.index.Tensor, aten._unsafe_index.Tensor}
WRITES = {aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.repeat_interleave.Tensor,
    aten.bincount.default,
}
TAKES_SCALARS = {
    *(aten.where.self, aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.lerp.Tensor),
    *(aten.lerp_.Tensor, aten.clamp.Tensor, aten.fill_.Tensor, aten.index_fill.int_Tensor),
}
"""Operations besides the pointwise ones that take a 0-dim CPU tensor."""


class Pretence(TorchDispatchMode):
    """Keeps the two devices apart, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        """Times the host waited for the device, by line and reason."""
        self.uploads: Counter[str] = Counter()
        """Copies from the CPU to the device, by line."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def waits_in(self, path: str) -> int:
        """Waits asked for by lines of the files whose path begins so."""
        return sum(n for where, n in self.waits.items() if where.startswith(path))

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation on the CPU, and tag the result if it is on the device."""
        if func is torch.ops.prim.device.default:
            return DEVICE if isinstance(args[0], Tagged) else CPU
        tensors: list[Tensor] = []
        plain = [untagged(x, tensors) for x in args]
        settings = {name: untagged(x, tensors) for name, x in kwargs.items()}
        tagged = [t for t in tensors if isinstance(t, Tagged)]
        where = self._device_of(func, args, kwargs, tensors)
        if tagged or where != CPU:
            self._count(func, args, tagged, where)
        if func is aten._pin_memory.default:
            return args[0]
        if settings.get("device") is not None:
            settings["device"] = CPU
        out = func(*plain, **settings)
        if func is aten._local_scalar_dense.default or where == CPU:
            return out
        return retagged(out, {id(t.elem): t for t in tagged})

    def _device_of(
        self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]
    ) -> torch.device:
        """The device of the result; raises where CUDA would."""
        asked = kwargs.get("device")
        if asked is not None:
            return DEVICE if torch.device(asked).type == NAME else CPU
        tagged = [t for t in tensors if isinstance(t, Tagged)]
        if not tagged:
            return CPU
        others = [t for t in tensors if not isinstance(t, Tagged)]
        if not others:
            return DEVICE
        if func in COPIES:
            return DEVICE if isinstance(args[0], Tagged) else CPU
        if func in READS | WRITES:
            if not isinstance(args[0], Tagged):
                refuse(func, "indices or values on the device and a CPU tensor", tensors)
            if func in WRITES and not isinstance(args[2], Tagged) and args[2].dim() > 0:
                refuse(func, "CPU values put into a tensor on the device", tensors)
            return DEVICE
        if any(t.dim() > 0 for t in others):
            refuse(func, "operands on the device and on the CPU", tensors)
        if torch.Tag.pointwise not in func.tags and func not in TAKES_SCALARS:
            refuse(func, "a 0-dim CPU tensor in an operation that is not pointwise", tensors)
        return DEVICE

    def _count(self, func: Any, args: Any, tagged: list[Tagged], where: torch.device) -> None:
        if func is aten._to_copy.default or func is aten.copy_.default:
            source = args[1] if func is aten.copy_.default else args[0]
            if isinstance(source, Tagged) and where == CPU:
                self.waits[f"{place()}: to the CPU"] += 1
            elif not isinstance(source, Tagged) and where != CPU and source.dim() > 0:
                self.uploads[place()] += 1
        elif func in WAITS and tagged:
            self.waits[f"{place()}: {func.name().removeprefix('aten::')}"] += 1
        elif func in READS | WRITES:
            indices = [i for i in args[1] if i is not None]
            if any(i.dtype in (torch.bool, torch.uint8) for i in indices):
                self.waits[f"{place()}: boolean index"] += 1
            elif any(not isinstance(i, Tagged) for i in indices):
                self.uploads[f"{place()}: CPU index"] += 1


def untagged(value: Any, found: list[Tensor]) -> Any:
    """A tensor's CPU tensor, also inside a list; every tensor is added to those found."""
    if isinstance(value, torch.Tensor):
        found.append(value)
        return value.elem if isinstance(value, Tagged) else value
    if isinstance(value, list | tuple):
        return type(value)([untagged(x, found) for x in value])
    return value


def retagged(value: Any, owners: dict[int, Tagged]) -> Any:
    """An operation's result on the device; a tensor that it changed in place is the same object."""
    if isinstance(value, torch.Tensor):
        return owners[id(value)] if id(value) in owners else Tagged(value)
    if isinstance(value, list | tuple):
        return type(value)(retagged(x, owners) for x in value)
    return value


def refuse(func: Any, why: str, tensors: list[Tensor]) -> None:
    shapes = [(NAME if isinstance(t, Tagged) else "cpu", tuple(t.shape)) for t in tensors]
    raise DeviceMix(f"{place()}: {func}: {why}: {shapes}")


RUNNING: list[Pretence] = [Pretence()]
"""Innermost last; the first one stands for tensors that outlive their context."""


def module_to(module: Any, target: Any = None, dtype: Any = None, **settings: Any) -> Any:
    """`torch.nn.Module.to`, also to the pretend device; tied weights stay tied."""
    if isinstance(target, torch.dtype):
        target, dtype = None, target
    target = settings.get("device", target)
    memo: dict[int, Tensor] = {}
    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, value in store.items():
                if value is not None:
                    store[name] = memo.setdefault(id(value), _moved(value, target, dtype))
    return module


def _moved(value: Any, target: Any, dtype: Any) -> Any:
    kind = dtype if value.dtype.is_floating_point else None
    new = value.detach().to(device=target or value.device, dtype=kind or value.dtype)
    if new is value or (new.device == value.device and new.dtype == value.dtype):
        return value
    is_weight = isinstance(value, torch.nn.Parameter)
    return torch.nn.Parameter(new, value.requires_grad) if is_weight else new


def resolve(name: str) -> torch.device:
    """What `resolve_device` says on a machine that has the device."""
    return CPU if name == "cpu" else DEVICE


@contextmanager
def pretending() -> Generator[Pretence]:
    """The device exists inside this context."""
    changed: list[tuple[Any, str, Any]] = [
        (load, "resolve_device", resolve),
        (checks, "resolve_device", resolve),
        (torch.nn.Module, "to", module_to),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in changed]
    for owner, name, new in changed:
        setattr(owner, name, new)
    torch._C._set_only_lift_cpu_tensors(True)  # so that the mode sees torch.tensor(..., device=...)
    mode = Pretence()
    RUNNING.append(mode)
    try:
        with mode:
            yield mode
    finally:
        RUNNING.pop()
        torch._C._set_only_lift_cpu_tensors(False)
        for owner, name, original in originals:
            setattr(owner, name, original)
