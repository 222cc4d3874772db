"""A device that counts the operators for which the host waits, computed on the CPU.

A tensor of this device holds one of the CPU; its device is called "meta". Every operator gives the values of the CPU.
An operator is counted if CUDA would wait until all queued work is done:

    item        a number is read: item(), bool(), int(), an `if`
    nonzero     a shape depends on the values: nonzero, masked_select, an index or a mask of bools
    to host     a copy to the CPU: tolist(), cpu()
    to device   a blocking copy from the CPU, torch.tensor(..., device=) included
    index       an index on the CPU for a tensor on the device, which is copied first
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")

_aten = torch.ops.aten
_INDEXING = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)
_NONZERO = (
    _aten.nonzero.default, _aten.masked_select.default, _aten.masked_scatter_backward.default,
    _aten.repeat_interleave.Tensor,
)  # fmt: skip


class DeviceTensor(torch.Tensor):
    """A tensor of the counting device, with its values on the CPU."""

    value: torch.Tensor

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> "DeviceTensor":
        found = torch.Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), storage_offset=value.storage_offset(), dtype=value.dtype,
            device=DEVICE, requires_grad=value.requires_grad,
        )  # fmt: skip
        found.value = value.detach()
        return found

    def __init__(self, value: torch.Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class SyncCounter(TorchDispatchMode):
    """Counts the operators within the block that would wait, and where they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = waits_for(func, args, kwargs or {})
        if kind:
            self.counts[kind] += 1
        return compute(func, args, kwargs or {})


def waits_for(func: Any, args: Any, kwargs: dict[str, Any]) -> str:
    """Return the kind of wait of an operator, empty without one."""
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    on_device = [isinstance(one, DeviceTensor) for one in tensors]
    if func is _aten._to_copy.default:
        target = kwargs.get("device")
        if target is None or not tensors[0].numel() or on_device[0] == (torch.device(target) == DEVICE):
            return ""
        return "to host" if on_device[0] else "" if kwargs.get("non_blocking") else "to device"
    if not any(on_device):
        return ""
    if func is _aten._local_scalar_dense.default:
        return "item"
    if func in _NONZERO:
        return "nonzero"
    if func in _INDEXING:
        indices = [one for one in args[1] if one is not None]
        if any(one.dtype == torch.bool for one in indices):
            return "nonzero"
        return "" if all(isinstance(one, DeviceTensor) for one in indices) else "index"
    if func is _aten.copy_.default and not all(on_device):
        return ("to device" if on_device[0] else "to host") if not kwargs.get("non_blocking") else ""
    if any(one.ndim and not isinstance(one, DeviceTensor) for one in tensors):
        raise RuntimeError(f"{func}: tensors of the CPU and of the device")
    return ""


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the CPU; its results are on the device if an input is, or if the operator puts them there."""
    is_on_device = any(isinstance(one, DeviceTensor) for one in tree_flatten((args, kwargs))[0])
    if kwargs.get("device") is not None:
        is_on_device = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": "cpu"}
    found = func(*tree_map(_value, args), **tree_map(_value, kwargs))
    if func._schema.name.endswith("_") and isinstance(args[0], torch.Tensor):
        return args[0]
    return tree_map(_wrapped, found) if is_on_device else found


def _wrapped(one: Any) -> Any:
    return DeviceTensor(one) if isinstance(one, torch.Tensor) else one


def _value(one: Any) -> Any:
    return one.value if isinstance(one, DeviceTensor) else one


def to_counting_device(model: nn.Module) -> None:
    """Move a module's parameters and buffers to the device."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(DeviceTensor(parameter.data), parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, DeviceTensor(buffer))


class _CopiesShown(TorchFunctionMode):
    """Makes torch.tensor(..., device=) and tolist() explicit copies, which they are on CUDA."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is torch.Tensor.tolist and isinstance(args[0], DeviceTensor):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the waits within the block."""
    with patch("torch.autocast", lambda *_, **__: nullcontext()), _CopiesShown(), SyncCounter() as counter:
        yield counter.counts
