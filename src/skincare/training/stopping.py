"""Requests to end a training run early: Ctrl-C, SIGTERM (spot machines, SLURM) and a time limit.

A run that ends early saves its state first. In a single process a signal raises KeyboardInterrupt at once, except
within `deferred`, where weights and counters change together. Several processes agree between two steps: an exception
in one of them would leave the others waiting in a collective.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Literal

from skincare.errors import StageError

# A launcher passes Ctrl-C on, so that a process receives it twice; only a later one is a second request.
_REPEATED_AFTER_S: Final = 1.0

StopReason = Literal["", "signal", "time limit"]


class TimeLimitError(StageError):
    """The run reached its time limit and saved its state; 75 is EX_TEMPFAIL of sysexits.h: run again to continue."""

    exit_code = 75


class StopRequest:
    """Receives SIGINT and SIGTERM, and measures the time since its creation against a limit in minutes."""

    def __init__(self, max_minutes: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = None if max_minutes is None else clock() + 60 * max_minutes
        self._signalled_at: float | None = None
        self._n_deferred = 0

    @property
    def reason(self) -> StopReason:
        """Return why the run should stop; empty if it should not."""
        if self._signalled_at is not None:
            return "signal"
        return "time limit" if self._deadline is not None and self._clock() >= self._deadline else ""

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Receive the signals within the block; does nothing outside the main thread, which has all signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise the KeyboardInterrupt of a signal at the end of the block instead of within it."""
        self._n_deferred += 1
        try:
            yield
        finally:
            self._n_deferred -= 1
        if self._signalled_at is not None and not self._n_deferred:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = self._clock()
        is_repeated = self._signalled_at is not None and now - self._signalled_at > _REPEATED_AFTER_S
        if self._signalled_at is None:
            self._signalled_at = now
        # A second Ctrl-C ends even a step that hangs.
        if not self._n_deferred or (is_repeated and number == signal.SIGINT):
            raise KeyboardInterrupt
