"""Politeness: one gate per host spaces its requests, whichever thread makes them, and closes when the host says so."""

import math
import re
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class StoppedError(Exception):
    """The work was called off while a thread waited."""


class Gate:
    """Lets one request pass every `delay_s` seconds; `stop` ends all waiting with StoppedError."""

    def __init__(self, delay_s: float, stop: threading.Event) -> None:
        self._delay_s = delay_s
        self._stop = stop
        self._opens_at = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is this thread's turn."""
        while (wait_s := self._claim()) > 0:
            pause(wait_s, self._stop)

    def park(self, seconds: float) -> None:
        """Let nothing pass for that long: what Retry-After asks of all threads, not of one."""
        with self._lock:
            self._opens_at = max(self._opens_at, time.monotonic() + seconds)

    def slow_down(self, delay_s: float) -> None:
        """Space the requests at least that far apart from now on."""
        with self._lock:
            self._delay_s = max(self._delay_s, delay_s)

    def _claim(self) -> float:
        with self._lock:
            now = time.monotonic()
            if now < self._opens_at:
                return self._opens_at - now
            self._opens_at = now + self._delay_s
            return 0.0


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
