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
from skincare.collecting.scrape_work import Work

# Hosts beyond what that many threads serve wait until others are done.
MAX_THREADS: Final = 64
# So much trouble that the shop, the network or our welcome is gone, and more requests would only annoy: all of so
# many in a row, or such a share of so many.
MAX_TROUBLE_IN_A_ROW: Final = 50
MAX_TROUBLE_SHARE: Final = 0.5
TROUBLE_WINDOW: Final = 200
_TROUBLE: Final = {"connection_error", "timeout", "too_slow", "challenge", "http_403", "http_429", "no_image_saved"}


@dataclass(frozen=True)
class Outcome:
    """How one product of a host ended."""

    host: str
    failure: Failure | None


class Alarm:
    """Hears how a host's products end and tells when to give the host up."""

    def __init__(self) -> None:
        self._recent: deque[str] = deque(maxlen=TROUBLE_WINDOW)

    def hear(self, failure: Failure | None) -> str:
        """Return why to give up, or nothing."""
        self._recent.append(failure.reason if failure is not None and _is_trouble(failure) else "")
        last = list(self._recent)[-MAX_TROUBLE_IN_A_ROW:]
        if len(last) == MAX_TROUBLE_IN_A_ROW and all(last):
            return f"{len(last)} products in a row failed ({_listed(last)})"
        n_trouble = sum(map(bool, self._recent))
        if len(self._recent) == TROUBLE_WINDOW and n_trouble >= MAX_TROUBLE_SHARE * TROUBLE_WINDOW:
            return f"{n_trouble} of the last {TROUBLE_WINDOW} products failed ({_listed(self._recent)})"
        return ""


class Pools:
    """Works through several hosts' products, with so many threads for each."""

    def __init__(
        self,
        works: Mapping[str, Iterator[Work]],
        n_threads: Mapping[str, int],
        collect: Callable[[Work], Failure | None],
        stop: Callable[[], None],
    ) -> None:
        self._queues = {host: _Queue(some) for host, some in works.items()}
        self._n_threads = n_threads
        self._collect = collect
        self._stop = stop
        self._found: SimpleQueue[Outcome | Exception | None] = SimpleQueue()

    def outcomes(self) -> Generator[Outcome]:
        """Yield the outcomes as they come; an error of any thread is raised here, and the others are stopped."""
        hosts = [
            host
            for turn in range(max(self._n_threads.values(), default=0))
            for host in self._queues
            if turn < self._n_threads[host]
        ]
        with ThreadPoolExecutor(min(len(hosts), MAX_THREADS) or 1) as executor:
            for host in hosts:
                executor.submit(self._drain, host)
            try:
                yield from self._until_all_are_done(len(hosts))
            finally:
                for host in self._queues:
                    self.give_up(host)
                self._stop()

    def give_up(self, host: str) -> None:
        """Begin no further product of the host."""
        self._queues[host].close()

    def _until_all_are_done(self, n_running: int) -> Iterator[Outcome]:
        while n_running:
            found = self._found.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                n_running -= 1
            else:
                yield found

    def _drain(self, host: str) -> None:
        try:
            while (work := self._queues[host].take()) is not None:
                self._found.put(Outcome(host, self._collect(work)))
            self._found.put(None)
        except Exception as error:
            self._found.put(error)


class _Queue:
    """An iterator that several threads share."""

    def __init__(self, works: Iterator[Work]) -> None:
        self._works = works
        self._is_open = True
        self._lock = threading.Lock()

    def take(self) -> Work | None:
        with self._lock:
            return next(self._works, None) if self._is_open else None

    def close(self) -> None:
        with self._lock:
            self._is_open = False


def _is_trouble(failure: Failure) -> bool:
    return failure.reason in _TROUBLE or failure.reason.startswith("http_5")


def _listed(reasons: "deque[str] | list[str]") -> str:
    return ", ".join(f"{reason} {n}" for reason, n in sorted(Counter(filter(None, reasons)).items()))
