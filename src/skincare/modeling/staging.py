"""Copies from the host to the model's device."""

from collections.abc import Sequence

import torch


def pinned(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Return tensors from which a copy to the device starts at once: in pinned memory for CUDA, else unchanged."""
    if device.type != "cuda" or not tensors or tensors[0].device.type == "cuda":
        return list(tensors)
    return list(torch.cat(list(tensors)).pin_memory().split([len(one) for one in tensors]))


def to_device(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Return tensors of equal width and dtype on a device, in order, with a single copy for all that are not pinned.

    On CUDA the copy starts from pinned memory, so that the host does not wait for it.
    """
    if not tensors or all(one.device == device for one in tensors):
        return list(tensors)
    if device.type == "cuda" and all(one.is_pinned() for one in tensors):
        return [one.to(device, non_blocking=True) for one in tensors]
    together = torch.cat(list(tensors))
    if device.type == "cuda":
        together = together.pin_memory()
    return list(together.to(device, non_blocking=True).split([len(one) for one in tensors]))


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; on CUDA the host does not wait for the copy."""
    return to_device([tensor], device)[0]
