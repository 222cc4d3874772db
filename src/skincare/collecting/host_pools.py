"""One thread pool per host, so that a slow host does not delay the others.

Each thread takes the next product when it has finished the last, so memory does not grow with the catalogue. A host
that keeps failing is abandoned; the status of its remaining products does not change.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from skincare.collecting.scrape_state import Failure
from skincare.collecting.scrape_work import WorkItem
from skincare.runlog import counts_text

# Further hosts wait until a thread is free.
MAX_THREADS: Final = 64
# Thresholds for abandoning a host: this many systemic failures in a row, or this share of the last FAILURE_WINDOW.
MAX_CONSECUTIVE_FAILURES: Final = 50
MAX_FAILURE_SHARE: Final = 0.5
FAILURE_WINDOW: Final = 200
_SYSTEMIC_REASONS: Final = {
    "connection_error",
    "timeout",
    "too_slow",
    "challenge",
    "http_403",
    "http_429",
    "no_image_saved",
}


@dataclass(frozen=True)
class Outcome:
    """The result of one product."""

    host: str
    failure: Failure | None


class FailureMonitor:
    """Decides from the results of a host's products when to abandon the host."""

    def __init__(self) -> None:
        self._recent: deque[str] = deque(maxlen=FAILURE_WINDOW)

    def record(self, failure: Failure | None) -> str:
        """Record one result; return the reason to abandon the host, else an empty string."""
        self._recent.append(failure.reason if failure is not None and _is_systemic(failure) else "")
        last = list(self._recent)[-MAX_CONSECUTIVE_FAILURES:]
        if len(last) == MAX_CONSECUTIVE_FAILURES and all(last):
            return f"{len(last)} products in a row failed ({counts_text(Counter(last))})"
        systemic = [reason for reason in self._recent if reason]
        if len(self._recent) == FAILURE_WINDOW and len(systemic) >= MAX_FAILURE_SHARE * FAILURE_WINDOW:
            return f"{len(systemic)} of the last {FAILURE_WINDOW} products failed ({counts_text(Counter(systemic))})"
        return ""


class HostPools:
    """Processes the work items of several hosts with `n_threads` threads for each."""

    def __init__(
        self,
        work_items: Mapping[str, Iterator[WorkItem]],
        n_threads: Mapping[str, int],
        collect: Callable[[WorkItem], Failure | None],
        stop: Callable[[], None],
    ) -> None:
        self._queues = {host: _Queue(items) for host, items in work_items.items()}
        self._n_threads = n_threads
        self._collect = collect
        self._stop = stop
        self._results: SimpleQueue[Outcome | Exception | None] = SimpleQueue()

    def outcomes(self) -> Generator[Outcome]:
        """Yield outcomes as they complete; an exception in a thread is raised here and stops the others."""
        hosts = [
            host
            for round_index in range(max(self._n_threads.values(), default=0))
            for host in self._queues
            if round_index < self._n_threads[host]
        ]
        with ThreadPoolExecutor(min(len(hosts), MAX_THREADS) or 1) as executor:
            for host in hosts:
                executor.submit(self._run_worker, host)
            try:
                yield from self._results_until_done(len(hosts))
            finally:
                for host in self._queues:
                    self.abandon(host)
                self._stop()

    def abandon(self, host: str) -> None:
        """Start no further product of the host."""
        self._queues[host].close()

    def _results_until_done(self, n_running: int) -> Iterator[Outcome]:
        while n_running:
            found = self._results.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                n_running -= 1
            else:
                yield found

    def _run_worker(self, host: str) -> None:
        try:
            while (item := self._queues[host].next_item()) is not None:
                self._results.put(Outcome(host, self._collect(item)))
            self._results.put(None)
        except Exception as error:
            self._results.put(error)


class _Queue:
    """A thread-safe iterator."""

    def __init__(self, work_items: Iterator[WorkItem]) -> None:
        self._items = work_items
        self._is_open = True
        self._lock = threading.Lock()

    def next_item(self) -> WorkItem | None:
        with self._lock:
            return next(self._items, None) if self._is_open else None

    def close(self) -> None:
        with self._lock:
            self._is_open = False


def _is_systemic(failure: Failure) -> bool:
    return failure.reason in _SYSTEMIC_REASONS or failure.reason.startswith("http_5")
