"""One function over many items: on the cores of this machine, or on a Ray cluster. Results come in order.

Only so many items are under way at a time that memory stays flat, however many there are.
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
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, Final, Literal, TypeVar

from skincare.errors import StageError
from skincare.paths import REPOSITORY

# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

Engine = Literal["local", "ray"]
Item = TypeVar("Item")
Result = TypeVar("Result")

# Under way per worker: enough that none waits for the one that takes the results.
_AHEAD: Final = 4
# Handed over at a time, since a hand-over costs as much as a tenth of an image.
_BATCH: Final = 8
# The largest image that is decoded takes a few seconds; one that takes longer than this hangs its decoder.
_PATIENCE_S: Final = 60


def map_ordered(
    engine: Engine, function: Callable[[Item], Result], items: Iterable[Item], lost: Callable[[Item], Result],
    batch_size: int = _BATCH,
) -> Iterator[Result]:  # fmt: skip
    """Yield `function` of each item, worked out by other processes; what they cannot bear, they alone die of.

    `lost` gives the result for an item that crashes its process, or takes longer than a minute (on this machine; Ray
    tells of such an item and stops). `batch_size` items are handed over at a time: one where each takes long.
    `function` must be a module's function, items and results plain data. Raises StageError where Ray is asked for and
    not installed.
    """
    return _on_ray(function, items) if engine == "ray" else _on_processes(function, items, lost, batch_size)


def map_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function` of each item; for work that others do for Python meanwhile: a library in C, the disk."""
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


@contextmanager
def run_alongside(function: Callable[..., object], *arguments: object) -> Iterator[None]:
    """Run a function in another process while the block runs; what it raises is raised at the end."""
    with _start(1) as pool:
        done = pool.submit(function, *arguments)
        yield
        done.result()


def _on_processes(
    function: Callable[[Item], Result], items: Iterable[Item], lost: Callable[[Item], Result], batch_size: int
) -> Iterator[Result]:
    waiting = iter(items)
    batches = iter(lambda: list(islice(waiting, batch_size)), [])
    n_workers = os.cpu_count() or 1
    under_way: deque[tuple[list[Item], Future[list[Result]]]] = deque()
    pool = _start(n_workers)
    try:
        while True:
            for batch in islice(batches, n_workers * _AHEAD - len(under_way)):
                under_way.append((batch, _submit(pool, function, batch)))
            if not under_way:
                return
            batch, future = under_way.popleft()
            try:
                results = future.result()
            except BrokenProcessPool:
                # One item killed its process, and with it the pool: which one, is found out one by one.
                pool.shutdown()
                results = list(_one_by_one(function, batch, lost))
                pool = _start(n_workers)
                under_way = deque((other, _unless_broken(pool, function, other, old)) for other, old in under_way)
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(
    function: Callable[[Item], Result], items: Iterable[Item], lost: Callable[[Item], Result]
) -> Iterator[Result]:
    for item in items:
        with _start(1) as pool:
            try:
                yield pool.submit(_work, function, [item]).result()[0]
            except BrokenProcessPool:
                yield lost(item)


def _unless_broken(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], batch: list[Item], old: Future[list[Result]]
) -> Future[list[Result]]:
    """Return the future of a batch that was done before its pool broke; otherwise hand the batch to a new pool."""
    is_lost = isinstance(old.exception(), BrokenProcessPool)
    return _submit(pool, function, batch) if is_lost else old


def _submit(pool: ProcessPoolExecutor, function: Callable[[Item], Result], batch: list[Item]) -> Future[list[Result]]:
    """Hand a batch over; to a pool that broke just now too, which its future tells like those of all others."""
    try:
        return pool.submit(_work, function, batch)
    except BrokenProcessPool as error:
        broken: Future[list[Result]] = Future()
        broken.set_exception(error)
        return broken


def _start(n_workers: int) -> ProcessPoolExecutor:
    # Forked processes have all that they need at once; elsewhere than on Linux, forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    return ProcessPoolExecutor(n_workers, mp_context=context, initializer=_prepare_worker)


def _prepare_worker() -> None:
    """Leave signals to the parent, go when it goes, and leave the memory that is shared with it untouched."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    gc.freeze()
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: up to 32 MB a piece, 256 MB in all.

    The arrays of one image are as large as those of the next; given back to the system in between, as happens with
    one layout of the heap and not with another, they cost a third of the time in page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        mallopt(_M_TRIM_THRESHOLD, 1 << 28)


def _end_with(sentinel: int) -> None:
    """Wait for a process to end, killed or not, and end this one at once."""
    wait([sentinel])
    os._exit(1)


def _work(function: Callable[[Item], Result], batch: list[Item]) -> list[Result]:
    # An alarm that nobody handles ends the process, whatever library it hangs in.
    set_alarm = getattr(signal, "alarm", lambda _: None)
    results = []
    for item in batch:
        set_alarm(_PATIENCE_S)
        results.append(function(item))
    set_alarm(0)
    return results


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
