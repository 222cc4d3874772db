"""One function over many items: on the cores of this machine, or on a Ray cluster. Results come in order.

At most a few items per worker are in flight, so memory stays flat however many items there are.
"""

import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, Final, Literal, TypeVar

from pebble import ProcessExpired, ProcessPool

from skincare.errors import StageError
from skincare.paths import REPOSITORY

# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

Engine = Literal["local", "ray"]
Item = TypeVar("Item")
Result = TypeVar("Result")

# In flight per worker: enough that no worker waits for the consumer.
_AHEAD: Final = 16
# The largest image that is decoded takes a few seconds; one that takes longer than this hangs its decoder.
_TIMEOUT_S: Final = 60


def map_ordered(
    engine: Engine, function: Callable[[Item], Result], items: Iterable[Item], on_failure: Callable[[Item], Result]
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, computed by worker processes.

    An item whose worker crashes or runs longer than a minute yields `on_failure(item)`; the worker is replaced and no
    other item is affected. Ray has no such isolation: it raises. `function` must be a module-level function, items and
    results picklable. Exceptions of `function` are raised here, StageError if Ray is requested but not installed.
    """
    return _map_on_ray(function, items) if engine == "ray" else _map_on_processes(function, items, on_failure)


def map_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, n_threads: int | None = None, ahead: int = _AHEAD
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, on threads: for work that releases the GIL, or that waits.

    At most `ahead` results per thread are in memory.
    """
    n_workers = n_threads or os.cpu_count() or 1
    in_flight: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            for item in items:
                in_flight.append(pool.submit(function, item))
                if len(in_flight) > n_workers * ahead:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def run_alongside(function: Callable[..., object], *arguments: object) -> Iterator[None]:
    """Run a function in another process while the block runs; its exception is raised at the end of the block."""
    with _process_pool(1) as pool:
        future = pool.schedule(function, args=arguments)
        yield
        future.result()


def _map_on_processes(
    function: Callable[[Item], Result], items: Iterable[Item], on_failure: Callable[[Item], Result]
) -> Iterator[Result]:
    n_workers = os.cpu_count() or 1
    remaining = iter(items)
    in_flight: deque[tuple[Item, Future[Result]]] = deque()
    with _process_pool(n_workers) as pool:
        while True:
            for item in islice(remaining, n_workers * _AHEAD - len(in_flight)):
                in_flight.append((item, pool.schedule(function, args=(item,), timeout=_TIMEOUT_S)))
            if not in_flight:
                return
            item, future = in_flight.popleft()
            try:
                result = future.result()
            except (ProcessExpired, TimeoutError):
                result = on_failure(item)
            yield result


@contextmanager
def _process_pool(n_workers: int) -> Iterator[ProcessPool]:
    """Yield a pool whose workers are replaced when they die; leaving the block stops whatever still runs."""
    # Forked workers start with all modules loaded; forking is only safe on Linux.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPool(n_workers, initializer=_prepare_worker, context=context)
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()


def _prepare_worker() -> None:
    """Leave signals to the parent, exit when it exits, and keep the memory shared with it unmodified."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()
    gc.freeze()
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Configure glibc to keep freed memory: allocations of up to 32 MB, 256 MB in total.

    The arrays of one image are as large as those of the next. Returning them to the system in between, which depends on
    the heap layout, costs a third of the time in page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        mallopt(_M_TRIM_THRESHOLD, 1 << 28)


def _exit_with(sentinel: int) -> None:
    """Wait for the process of a sentinel to end, then end this one at once."""
    wait([sentinel])
    os._exit(1)


def _map_on_ray(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Stream the items through Ray Data, which limits what is in flight to the size of its object store."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise StageError("--engine ray needs Ray Data: python -m pip install 'ray[data]'") from error
    if not ray.is_initialized():
        # RAY_ADDRESS selects a cluster; its machines need the same folders, as on a shared disk.
        ray.init(log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY / "src")}})
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False

    def work(row: dict[str, Any]) -> dict[str, bytes]:
        # As bytes: Arrow would convert tuples and dataclasses.
        return {"result": pickle.dumps(function(row["item"]))}

    rows = [{"item": item} for item in items]
    if rows:
        for row in ray.data.from_items(rows).map(work).iter_rows():
            yield pickle.loads(row["result"])  # noqa: S301  our own workers wrote it
