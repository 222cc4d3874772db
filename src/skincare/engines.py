"""One function over many items: on the cores of this machine, or on a Ray cluster. Results come in order.

Only so many items are under way at a time that memory stays flat, however many there are.
"""

import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from skincare.errors import StageError
from skincare.paths import REPOSITORY

Engine = Literal["local", "ray"]
Item = TypeVar("Item")
Result = TypeVar("Result")

# Under way per worker: enough that none waits for the one that takes the results.
_AHEAD = 8


def in_order(engine: Engine, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function` of each item. It must be a module's function, and items and results plain data.

    Raises StageError where Ray is asked for and not installed.
    """
    return _on_ray(function, items) if engine == "ray" else _on_threads(function, items)


def _on_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    n_workers = os.cpu_count() or 1
    under_way: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) > n_workers * _AHEAD:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _on_ray(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Stream the items through Ray Data, which keeps only so much under way as its object store holds."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise StageError("--engine ray needs Ray Data: python -m pip install 'ray[data]'") from error
    if not ray.is_initialized():
        # A cluster is found by RAY_ADDRESS; its machines must see the same folders, as on a shared disk.
        ray.init(log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY / "src")}})
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False

    def work(row: dict[str, Any]) -> dict[str, bytes]:
        # As bytes: Arrow would turn tuples and dataclasses into what it takes them for.
        return {"result": pickle.dumps(function(row["item"]))}

    waiting = list(items)
    if waiting:
        for row in ray.data.from_items([{"item": item} for item in waiting]).map(work).iter_rows():
            yield pickle.loads(row["result"])  # noqa: S301  our own workers wrote it
