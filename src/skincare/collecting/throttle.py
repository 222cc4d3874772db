"""Politeness: one gate per host spaces its requests, whichever thread makes them, and follows how the host takes them.

The rule is that of Scrapy's AutoThrottle: the delay between two requests goes half the way towards latency / aim, at
once where that is longer, so that `aim` requests are under way on average; an answer that is no success never makes
it shorter, and nothing makes it shorter than what was asked for by the user or by robots.txt. On 429 and 503 the aim
is halved, and delay and concurrency with it; every success gives back a little, a whole request each round.
Source: https://docs.scrapy.org/en/latest/topics/autothrottle.html
"""

import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

# Of Scrapy, AUTOTHROTTLE_MAX_DELAY.
MAX_DELAY_S: Final = 60.0
# With the least aim a host that answers in a second is asked every eight seconds, or the user's delay times this.
_MIN_TARGET: Final = 1 / 8
_STOP_POLL_S: Final = 0.5
OVERLOAD_STATUSES: Final = frozenset({429, 503})
# A redirect is quick whatever the pages take.
SUCCESS_STATUSES: Final = frozenset({200, 304})


class StoppedError(Exception):
    """The work was called off while a thread waited."""


class HostThrottle:
    """Lets one request pass at a time, so many be under way; `stop` ends all waiting with StoppedError."""

    def __init__(self, delay_s: float, stop: threading.Event, concurrency: int = 1) -> None:
        self._min_delay_s = delay_s
        self._delay_s = delay_s
        self._max_target = concurrency
        self._target = float(concurrency)
        self._stop = stop
        self._next_start_at = 0.0
        self._n_active = 0
        self._halved_at = -math.inf
        self._changed = threading.Condition()

    @property
    def delay_s(self) -> float:
        """Return the delay between two requests as it is now."""
        return self._delay_s

    @contextmanager
    def slot(self) -> Iterator["RequestSlot"]:
        """Wait for this thread's turn; the request counts as under way until the block ends."""
        with self._changed:
            while (wait_s := self._try_acquire()) > 0:
                # An event cannot wake a condition: look from time to time whether all is called off.
                self._changed.wait(min(wait_s, _STOP_POLL_S))
                if self._stop.is_set():
                    raise StoppedError
        try:
            yield RequestSlot(self)
        finally:
            with self._changed:
                self._n_active -= 1
                self._changed.notify_all()

    def defer(self, seconds: float) -> None:
        """Let nothing pass for that long: what Retry-After asks of all threads, not of one."""
        with self._changed:
            self._next_start_at = max(self._next_start_at, time.monotonic() + seconds)

    def raise_min_delay(self, delay_s: float) -> None:
        """Space the requests at least that far apart from now on."""
        with self._changed:
            self._min_delay_s = max(self._min_delay_s, delay_s)
            self._delay_s = max(self._delay_s, delay_s)

    def update(self, status: int, latency_s: float, started_at: float) -> None:
        """Take in how the host answered a request that was made at that moment."""
        with self._changed:
            if status in OVERLOAD_STATUSES and started_at > self._halved_at:
                # One overload refuses all requests that are under way: it counts once.
                self._target = max(self._target / 2, _MIN_TARGET)
                self._halved_at = time.monotonic()
            elif status in SUCCESS_STATUSES:
                self._target = min(
                    self._target + min(self._target, 1 / self._target),
                    self._max_target,
                )
            target_s = max(
                latency_s / self._target,
                self._min_delay_s * self._max_target / self._target,
            )
            delay_s = min(max(target_s, (self._delay_s + target_s) / 2), max(MAX_DELAY_S, self._min_delay_s))
            if status in SUCCESS_STATUSES or delay_s > self._delay_s:
                self._delay_s = delay_s

    def _try_acquire(self) -> float:
        """Take the turn and return 0, or return how long to wait for the next look."""
        now = time.monotonic()
        if now < self._next_start_at:
            return self._next_start_at - now
        if self._n_active >= math.ceil(self._target):
            return math.inf
        self._n_active += 1
        # Waking a little late must not add up, but the least delay is kept to the letter.
        self._next_start_at = max(
            max(self._next_start_at, now - self._delay_s) + self._delay_s, now + self._min_delay_s
        )
        return 0.0


class RequestSlot:
    """One request that is under way."""

    def __init__(self, throttle: HostThrottle) -> None:
        self._throttle = throttle
        self._started_at = time.monotonic()

    def record_status(self, status: int) -> None:
        """Tell the gate that the head of the answer has come."""
        self._throttle.update(status, time.monotonic() - self._started_at, self._started_at)

    @property
    def seconds(self) -> float:
        """Return how long the request has been under way."""
        return time.monotonic() - self._started_at


def pause(seconds: float, stop: threading.Event) -> None:
    """Sleep; raises StoppedError as soon as `stop` is set."""
    if stop.wait(seconds):
        raise StoppedError


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, in either form; None where it says nothing usable.

    Source: RFC 9110, section 10.2.3.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
