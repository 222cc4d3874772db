"""Adaptive per-host throttling: the delay between requests and their concurrency, shared by all threads.

The rule is Scrapy's AutoThrottle. The target delay is latency / target concurrency. A longer target is adopted at once,
a shorter one halfway per response and only after a success. The delay never falls below the user's or robots.txt's
minimum. A 429 or 503 halves the target concurrency; each success raises it by up to 1 / target concurrency.
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

# Scrapy's default AUTOTHROTTLE_MAX_DELAY.
MAX_DELAY_S: Final = 60.0
# At this target a host with a latency of one second receives one request every eight seconds.
_MIN_TARGET: Final = 1 / 8
_STOP_POLL_S: Final = 0.5
OVERLOAD_STATUSES: Final = frozenset({429, 503})
# Redirects are excluded: their latency says nothing about the latency of pages.
SUCCESS_STATUSES: Final = frozenset({200, 304})


class StoppedError(Exception):
    """The client was stopped while a thread waited."""


class HostThrottle:
    """Limits the request rate and the concurrency of one host; `stop` ends every wait with StoppedError."""

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
        """Return the current delay between two requests, in seconds."""
        return self._delay_s

    @contextmanager
    def slot(self) -> Iterator["RequestSlot"]:
        """Wait for a request slot and hold it until the block ends; raises StoppedError."""
        with self._changed:
            while (wait_s := self._try_acquire()) > 0:
                # An Event cannot notify a Condition, so poll it.
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
        """Start no request for this many seconds, in any thread (Retry-After)."""
        with self._changed:
            self._next_start_at = max(self._next_start_at, time.monotonic() + seconds)

    def raise_min_delay(self, delay_s: float) -> None:
        """Raise the minimum delay between two requests."""
        with self._changed:
            self._min_delay_s = max(self._min_delay_s, delay_s)
            self._delay_s = max(self._delay_s, delay_s)

    def update(self, status: int, latency_s: float, started_at: float) -> None:
        """Adjust delay and concurrency to the response of a request that was sent at `started_at` (monotonic time)."""
        with self._changed:
            if status in OVERLOAD_STATUSES and started_at > self._halved_at:
                # An overload rejects all requests in flight: halve once, not once per request.
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
        """Acquire a slot and return 0, or return the seconds to wait before the next attempt."""
        now = time.monotonic()
        if now < self._next_start_at:
            return self._next_start_at - now
        if self._n_active >= math.ceil(self._target):
            return math.inf
        self._n_active += 1
        # Late wake-ups do not accumulate, but two requests are never closer than the minimum delay.
        self._next_start_at = max(
            max(self._next_start_at, now - self._delay_s) + self._delay_s, now + self._min_delay_s
        )
        return 0.0


class RequestSlot:
    """A request in flight."""

    def __init__(self, throttle: HostThrottle) -> None:
        self._throttle = throttle
        self._started_at = time.monotonic()

    def record_status(self, status: int) -> None:
        """Report the status of the response to the throttle."""
        self._throttle.update(status, time.monotonic() - self._started_at, self._started_at)

    @property
    def seconds(self) -> float:
        """Return the seconds since the request was sent."""
        return time.monotonic() - self._started_at


def pause(seconds: float, stop: threading.Event) -> None:
    """Sleep; raises StoppedError as soon as `stop` is set."""
    if stop.wait(seconds):
        raise StoppedError


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds of a Retry-After header, given as seconds or as a date; None if it is absent or invalid.

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
