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
_LEAST_AIM: Final = 1 / 8
_LATE_STOP_S: Final = 0.5
REFUSALS: Final = frozenset({429, 503})
# A redirect is quick whatever the pages take.
SUCCESSES: Final = frozenset({200, 304})


class StoppedError(Exception):
    """The work was called off while a thread waited."""


class Gate:
    """Lets one request pass at a time, so many be under way; `stop` ends all waiting with StoppedError."""

    def __init__(self, delay_s: float, stop: threading.Event, concurrency: int = 1) -> None:
        self._least_delay_s = delay_s
        self._delay_s = delay_s
        self._most = concurrency
        self._aim = float(concurrency)
        self._stop = stop
        self._opens_at = 0.0
        self._n_inside = 0
        self._halved_at = -math.inf
        self._changed = threading.Condition()

    @property
    def delay_s(self) -> float:
        """Return the delay between two requests as it is now."""
        return self._delay_s

    @contextmanager
    def turn(self) -> Iterator["Turn"]:
        """Wait for this thread's turn; the request counts as under way until the block ends."""
        with self._changed:
            while (wait_s := self._claim()) > 0:
                # An event cannot wake a condition: look from time to time whether all is called off.
                self._changed.wait(min(wait_s, _LATE_STOP_S))
                if self._stop.is_set():
                    raise StoppedError
        try:
            yield Turn(self)
        finally:
            with self._changed:
                self._n_inside -= 1
                self._changed.notify_all()

    def park(self, seconds: float) -> None:
        """Let nothing pass for that long: what Retry-After asks of all threads, not of one."""
        with self._changed:
            self._opens_at = max(self._opens_at, time.monotonic() + seconds)

    def slow_down(self, delay_s: float) -> None:
        """Space the requests at least that far apart from now on."""
        with self._changed:
            self._least_delay_s = max(self._least_delay_s, delay_s)
            self._delay_s = max(self._delay_s, delay_s)

    def learn(self, status: int, latency_s: float, asked_at: float) -> None:
        """Take in how the host answered a request that was made at that moment."""
        with self._changed:
            if status in REFUSALS and asked_at > self._halved_at:
                # One overload refuses all requests that are under way: it counts once.
                self._aim = max(self._aim / 2, _LEAST_AIM)
                self._halved_at = time.monotonic()
            elif status in SUCCESSES:
                self._aim = min(self._aim + min(self._aim, 1 / self._aim), self._most)
            target_s = max(latency_s / self._aim, self._least_delay_s * self._most / self._aim)
            delay_s = min(max(target_s, (self._delay_s + target_s) / 2), max(MAX_DELAY_S, self._least_delay_s))
            if status in SUCCESSES or delay_s > self._delay_s:
                self._delay_s = delay_s

    def _claim(self) -> float:
        """Take the turn and return 0, or return how long to wait for the next look."""
        now = time.monotonic()
        if now < self._opens_at:
            return self._opens_at - now
        if self._n_inside >= math.ceil(self._aim):
            return math.inf
        self._n_inside += 1
        # Waking a little late must not add up, but the least delay is kept to the letter.
        self._opens_at = max(max(self._opens_at, now - self._delay_s) + self._delay_s, now + self._least_delay_s)
        return 0.0


class Turn:
    """One request that is under way."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._asked_at = time.monotonic()

    def answered(self, status: int) -> None:
        """Tell the gate that the head of the answer has come."""
        self._gate.learn(status, time.monotonic() - self._asked_at, self._asked_at)

    @property
    def seconds(self) -> float:
        """Return how long the request has been under way."""
        return time.monotonic() - self._asked_at


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
