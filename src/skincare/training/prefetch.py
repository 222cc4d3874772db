"""Loading one item ahead in a background thread, while the device computes with the previous one."""

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Prefetcher(Generic[Key, Item]):
    """Returns `load(key)`; at most one item is loaded ahead.

    `load` runs in one thread at a time: it must not share state with what the caller does between `start` and `take`.
    An error of `load` is raised by `take`.
    """

    def __init__(self, load: Callable[[Key], Item]) -> None:
        self._load = load
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._pending: tuple[Key, Future[Item]] | None = None

    def start(self, key: Key) -> None:
        """Begin to load an item, unless another one was started and not taken yet."""
        if self._pending is None:
            self._pending = key, self._executor.submit(self._load, key)

    def take(self, key: Key) -> Item:
        """Return an item; loads it now if another one, or none, was started. An item that is not taken is dropped."""
        pending, self._pending = self._pending, None
        if pending is not None:
            started, future = pending
            if started == key:
                return future.result()
            wait([future])
        return self._load(key)
