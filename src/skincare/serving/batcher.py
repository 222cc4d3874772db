"""The bounded queue between the HTTP side and the workers: dynamic batching, restarts, replacement of the model.

An image that is accepted gets an answer: that of the worker, or an error once its time is over. An image whose worker
died is tried once more, alone, so that one image that crashes the worker does not take others with it.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from skincare.serving.answers import ImageAnswer, failed_answer
from skincare.serving.limits import Limits
from skincare.serving.metrics import Metrics
from skincare.serving.worker import Job, LoadPredictor, Worker, WorkerError, WorkerLoadError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_MAX_ATTEMPTS: Final = 2
_MAX_RETRY_AFTER_S: Final = 60
_MAX_BACKOFF_S: Final = 30.0
# Images that would wait longer than this share of the answer's time limit are refused at once: the estimate is a mean.
_MAX_WAIT_SHARE: Final = 0.5
# A 2B model on a CPU; the first batch is small enough for it.
_SLOW_IMAGE_S: Final = 10.0
# Weight of the newest batch in the running mean of the time per image.
_NEWEST: Final = 0.2


class OverloadedError(Exception):
    """The queue is full; `retry_after_s` is the estimated time until it is not."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"queue full, retry after {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(eq=False)
class _Waiting:
    """One image in the queue."""

    job: Job
    answer: asyncio.Future[ImageAnswer]
    n_attempts: int = 0


@dataclass(eq=False)
class _Slot:
    """One worker with the task that feeds it; a retired slot takes no more batches."""

    worker: Worker
    is_retired: bool = False
    is_live: bool = True
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Batcher:
    """Distributes images to `n_workers` workers, at most `max_batch` at a time."""

    def __init__(
        self, load: LoadPredictor, limits: Limits, metrics: Metrics, *, n_workers: int = 1, max_batch: int = 16,
        max_wait_s: float = 0.01,
    ) -> None:  # fmt: skip
        self._load = load
        self._limits = limits
        self._metrics = metrics
        self._n_workers = n_workers
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._waiting: deque[_Waiting] = deque()
        self._slots: list[_Slot] = []
        self._arrival = asyncio.Condition()
        self._reloading = asyncio.Lock()
        self._loading: set[Worker] = set()
        self._is_stopped = False
        self._seconds_per_image = 0.0
        # Each worker blocks a thread while it computes, a replaced one and its successor at the same time.
        self._threads = ThreadPoolExecutor(4 * n_workers + 2, thread_name_prefix="worker")
        metrics.watch_queue(lambda: len(self._waiting))

    @property
    def n_waiting(self) -> int:
        """Return the number of images in the queue."""
        return len(self._waiting)

    @property
    def n_live(self) -> int:
        """Return the number of workers that can answer."""
        return sum(one.is_live for one in self._slots)

    @property
    def name(self) -> str:
        """Return the name of the predictor."""
        return self._slots[0].worker.name if self._slots else ""

    @property
    def worker_pids(self) -> list[int]:
        """Return the process ids of the current workers."""
        return [one.worker.pid for one in self._slots if one.worker.pid is not None]

    async def start(self) -> None:
        """Start the workers; raises WorkerLoadError if one cannot load the predictor."""
        async with self._reloading:
            self._slots = await self._start_slots()

    async def predict(self, jobs: Sequence[Job]) -> list[ImageAnswer]:
        """Return one answer per job, in order.

        Raises OverloadedError if the queue has no room for all of them, TimeoutError after `answer_timeout_s`.
        """
        self.check_room(len(jobs))
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(job, loop.create_future()) for job in jobs]
        self._waiting.extend(waiting)
        async with self._arrival:
            self._arrival.notify_all()
        try:
            return await asyncio.wait_for(
                asyncio.gather(*(one.answer for one in waiting)), self._limits.answer_timeout_s
            )
        finally:
            # After a timeout nobody waits for them; they need not reach a worker.
            for one in waiting:
                if one in self._waiting:
                    self._waiting.remove(one)

    def check_room(self, n_images: int) -> None:
        """Raise OverloadedError if the queue has no room, or its images would probably not be answered in time."""
        expected_s = self._expected_s(self.n_waiting + n_images)
        is_too_long = self.n_waiting > 0 and expected_s > _MAX_WAIT_SHARE * self._limits.answer_timeout_s
        if is_too_long or self.n_waiting + n_images > self._limits.max_queue:
            raise OverloadedError(self.retry_after_s)

    @property
    def retry_after_s(self) -> int:
        """Return the estimated seconds until the queue is empty, at least 1."""
        return max(1, min(_MAX_RETRY_AFTER_S, math.ceil(self._expected_s(self.n_waiting))))

    def _expected_s(self, n_images: int) -> float:
        return n_images * self._seconds_per_image / max(1, self.n_live)

    async def reload(self) -> bool:
        """Load the predictor in new workers, then replace the old ones by them.

        The old workers answer until the new ones are ready, and stay if those cannot load. Return whether they were
        replaced.
        """
        async with self._reloading:
            try:
                fresh = await self._start_slots()
            except WorkerLoadError as error:
                logger.error("The new version was refused, the old one stays: %s", error)
                self._metrics.reloads.labels("refused").inc()
                return False
            old, self._slots = self._slots, fresh
            await self._retire(old)
            self._metrics.reloads.labels("replaced").inc()
            logger.info("Reloaded: %s", self.name)
            return True

    async def stop(self) -> None:
        """Stop the workers once their batches are done; workers that still load are killed."""
        self._is_stopped = True
        for worker in tuple(self._loading):
            worker.end()
        await self._retire(self._slots)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _start_slots(self) -> list[_Slot]:
        workers = [Worker(self._load) for _ in range(self._n_workers)]
        starts = [self._in_thread(self._start, one) for one in workers]
        failures = [one for one in await asyncio.gather(*starts, return_exceptions=True) if one is not None]
        if failures:
            for worker in workers:
                await self._in_thread(worker.kill)
            raise failures[0]
        slots = [_Slot(one) for one in workers]
        for slot in slots:
            slot.task = asyncio.create_task(self._feed(slot))
        return slots

    def _start(self, worker: Worker) -> None:
        self._loading.add(worker)
        try:
            worker.start(self._limits.load_timeout_s)
        finally:
            self._loading.discard(worker)
            if self._is_stopped:
                worker.end()

    async def _retire(self, slots: Sequence[_Slot]) -> None:
        for slot in slots:
            slot.is_retired = True
        async with self._arrival:
            self._arrival.notify_all()
        await asyncio.gather(*(slot.task for slot in slots if slot.task), return_exceptions=True)
        await asyncio.gather(*(self._in_thread(slot.worker.stop) for slot in slots))

    async def _feed(self, slot: _Slot) -> None:
        """Give batches to a worker, and replace it when it fails, until the slot is retired."""
        while batch := await self._next_batch(slot):
            started = time.perf_counter()
            try:
                answers = await self._in_thread(
                    slot.worker.predict, [one.job for one in batch], self._limits.batch_timeout_s
                )
            except WorkerError as error:
                self._give_back(batch, error)
                await self._replace_worker(slot, error)
                continue
            self._record(batch, time.perf_counter() - started)
            for one, answer in zip(batch, answers, strict=True):
                if not one.answer.done():
                    one.answer.set_result(answer)

    async def _next_batch(self, slot: _Slot) -> list[_Waiting]:
        """Wait for images and return a batch; empty once the slot is retired."""
        while not slot.is_retired:
            async with self._arrival:
                await self._arrival.wait_for(lambda: bool(self._waiting) or slot.is_retired)
            if not slot.is_retired and self._max_wait_s and len(self._waiting) < self._max_batch > 1:
                await asyncio.sleep(self._max_wait_s)
            if batch := self._take():
                return batch
        return []

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._batch_limit():
            is_retry = self._waiting[0].n_attempts > 0
            if is_retry and batch:
                break
            one = self._waiting.popleft()
            if not one.answer.done():
                batch.append(one)
                one.n_attempts += 1
            if is_retry and batch:
                break
        return batch

    def _batch_limit(self) -> int:
        """Return the images per batch: fewer than `max_batch` on a machine that would need too long for them."""
        if self._seconds_per_image == 0:
            return 1 if self._max_batch * _SLOW_IMAGE_S > self._limits.batch_timeout_s else self._max_batch
        in_time = int(_MAX_WAIT_SHARE * self._limits.batch_timeout_s / self._seconds_per_image)
        return max(1, min(self._max_batch, in_time))

    def _give_back(self, batch: Sequence[_Waiting], error: WorkerError) -> None:
        """Put the images of a failed batch back, or answer those that had their second try or hung alone."""
        for one in reversed(batch):
            has_hung = len(batch) == 1 and error.reason == "worker_timeout"
            if one.answer.done():
                continue
            if one.n_attempts < _MAX_ATTEMPTS and not has_hung:
                self._waiting.appendleft(one)
            else:
                one.answer.set_result(failed_answer(one.job.name, error.reason))

    async def _replace_worker(self, slot: _Slot, error: WorkerError) -> None:
        """Start another worker, with exponential back-off while it cannot load."""
        logger.error("%s; starting another worker", error.reason)
        self._metrics.worker_restarts.labels(error.reason).inc()
        slot.is_live = False
        backoff_s = 0.5
        while not slot.is_retired:
            worker = Worker(self._load)
            try:
                await self._in_thread(self._start, worker)
            except WorkerLoadError as failure:
                logger.error("The worker could not load: %s", failure)
                await asyncio.sleep(backoff_s)
                backoff_s = min(_MAX_BACKOFF_S, 2 * backoff_s)
                continue
            slot.worker, slot.is_live = worker, True
            return

    def _record(self, batch: Sequence[_Waiting], seconds: float) -> None:
        self._metrics.batch_size.observe(len(batch))
        self._metrics.batch_seconds.observe(seconds)
        latest = seconds / len(batch)
        is_first = self._seconds_per_image == 0
        self._seconds_per_image += (latest - self._seconds_per_image) * (1.0 if is_first else _NEWEST)

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
