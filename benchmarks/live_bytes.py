"""The memory of tensors: counted while they are made and freed, on any device."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that were made in this mode and are alive; `peak` is the most at one time.

    Raises torch.OutOfMemoryError, as a device of that size, where they would be more than `limit`.
    """

    def __init__(self, limit: float = float("inf")) -> None:
        super().__init__()
        self.limit = limit
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, torch.Tensor) and one.device.type != "meta":
                self._add(one.untyped_storage(), known)
        return found

    def _add(self, storage: Any, known: set[int]) -> None:
        # A result may be a view of an argument, made in this mode or before.
        if storage._cdata in known or storage._cdata in self._seen:
            return
        self._seen.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())
        if self.now > self.limit:
            raise torch.OutOfMemoryError(f"{self.now} bytes of {self.limit}")

    def _remove(self, address: int, n_bytes: int) -> None:
        self._seen.discard(address)
        self.now -= n_bytes
