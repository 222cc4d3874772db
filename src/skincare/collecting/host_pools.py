"""One pool of threads per host: what the products of one host wait for holds up no other.

A thread takes the next product when it is done with the last, so nothing is queued and memory does not grow with the
catalogue. A host that gives nothing but trouble is given up; its other products stay as they are.
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

# Hosts beyond what that many threads serve wait until others are done.
MAX_THREADS: Final = 64
# So much trouble that the shop, the network or our welcome is gone, and more requests would only annoy: all of so
# many in a row, or such a share of so many.
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
    """How one product of a host ended."""

    host: str
    failure: Failure | None


class FailureMonitor:
    """Hears how a host's products end and tells when to give the host up."""

    def __init__(self) -> None:
        self._recent: deque[str] = deque(maxlen=FAILURE_WINDOW)

    def record(self, failure: Failure | None) -> str:
        """Return why to give up, or nothing."""
        self._recent.append(failure.reason if failure is not None and _is_systemic(failure) else "")
        last = list(self._recent)[-MAX_CONSECUTIVE_FAILURES:]
        if len(last) == MAX_CONSECUTIVE_FAILURES and all(last):
            return f"{len(last)} products in a row failed ({_listed(last)})"
        n_systemic = sum(map(bool, self._recent))
        if len(self._recent) == FAILURE_WINDOW and n_systemic >= MAX_FAILURE_SHARE * FAILURE_WINDOW:
            return f"{n_systemic} of the last {FAILURE_WINDOW} products failed ({_listed(self._recent)})"
        return ""


class HostPools:
    """Works through several hosts' products, with so many threads for each."""

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
        """Yield the outcomes as they come; an error of any thread is raised here, and the others are stopped."""
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
        """Begin no further product of the host."""
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
    """An iterator that several threads share."""

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


def _listed(reasons: "deque[str] | list[str]") -> str:
    return ", ".join(f"{reason} {n}" for reason, n in sorted(Counter(filter(None, reasons)).items()))
