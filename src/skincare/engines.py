"""One function over many items: on the cores of this machine, or on a Ray cluster. Results come in order.

Only so many items are under way at a time that memory stays flat, however many there are.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from skincare.errors import StageError
from skincare.paths import REPOSITORY

Engine = Literal["local", "ray"]
Item = TypeVar("Item")
Result = TypeVar("Result")

# Under way per worker: enough that none waits for the one that takes the results.
_AHEAD = 8
# Pictures a task of Ray: its overhead of about a millisecond is that of a quarter of a picture.
_RAY_CHUNK = 16


def in_order(engine: Engine, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function` of each item. It must be a module's function, and items and results plain data.

    Raises StageError where Ray is asked for and not installed.
    """
    return _on_ray(function, items) if engine == "ray" else _on_threads(function, items)


def _on_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    n_workers = os.cpu_count() or 1
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            yield from _windowed(lambda item: pool.submit(function, item).result, items, n_workers * _AHEAD)
        finally:
            pool.shutdown(cancel_futures=True)


def _on_ray(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    try:
        import ray
    except ImportError as error:
        raise StageError("--engine ray needs Ray: python -m pip install ray") from error
    if not ray.is_initialized():
        # A cluster is found by RAY_ADDRESS; its machines must see the same folders, as on a shared disk.
        ray.init(log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY / "src")}})
    task = ray.remote(_apply_to_all)

    def start(chunk: list[Item]) -> Callable[[], list[Result]]:
        reference = task.remote(function, chunk)
        return lambda: ray.get(reference)

    n_ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    for results in _windowed(start, _chunks(items, _RAY_CHUNK), n_ahead):
        yield from results


def _apply_to_all(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return [function(item) for item in items]


def _windowed(start: Callable[[Item], Callable[[], Result]], items: Iterable[Item], n_ahead: int) -> Iterator[Result]:
    """Start each item and yield its result once `n_ahead` others are under way."""
    under_way: deque[Callable[[], Result]] = deque()
    for item in items:
        under_way.append(start(item))
        if len(under_way) > n_ahead:
            yield under_way.popleft()()
    while under_way:
        yield under_way.popleft()()


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
