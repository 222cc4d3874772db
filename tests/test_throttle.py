"""Delay and concurrency of a host adapt to its responses within the configured limits."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skincare.collecting.throttle import MAX_DELAY_S, HostThrottle, StoppedError, retry_after_s


def throttle(delay_s: float = 0.0, concurrency: int = 4) -> HostThrottle:
    return HostThrottle(delay_s, threading.Event(), concurrency)


def test_the_delay_follows_autothrottle():
    one, delay = throttle(), 0.0
    for latency in (2.0, 1.0, 0.2, 0.2, 4.0):
        one.update(200, latency, 0.0)
        target = latency / 4
        delay = max(target, (delay + target) / 2)
        assert one.delay_s == pytest.approx(delay)


@pytest.mark.parametrize("status", [404, 500, 302])
def test_only_a_success_shortens_the_delay(status):
    one = throttle()
    one.update(200, 2.0, 0.0)
    one.update(status, 0.01, 0.0)
    assert one.delay_s == 0.5
    one.update(status, 8.0, 0.0)
    assert one.delay_s == 2.0


@given(st.lists(st.tuples(st.sampled_from([200, 304, 301, 404, 429, 500, 503]), st.floats(0, 200)), max_size=40))
def test_the_delay_stays_within_bounds(responses):
    one = throttle(delay_s=0.3)
    one.raise_min_delay(0.5)
    for status, latency in responses:
        one.update(status, latency, time.monotonic() + 1)
        assert 0.5 <= one.delay_s <= MAX_DELAY_S


@pytest.mark.parametrize("status", [429, 503])
def test_overload_halves_the_rate_and_successes_restore_it(status):
    one = throttle(delay_s=1.0)
    one.update(status, 0.01, time.monotonic())
    assert one.delay_s == 2.0
    one.update(status, 0.01, 0.0)
    assert one.delay_s == 2.0, "sent before the first overload response: the same overload"
    one.update(status, 0.01, time.monotonic() + 1)
    assert one.delay_s == 4.0
    delays = []
    for _ in range(20):
        one.update(200, 0.01, 0.0)
        delays.append(one.delay_s)
    assert delays == sorted(delays, reverse=True)
    # Targets 2, 2.5, 2.9: each success adds 1 / target.
    assert delays[:3] == pytest.approx([3.0, 2.3, 1.84], abs=0.001)
    assert delays[-1] == pytest.approx(1.0, abs=0.01)


def test_concurrency_stays_within_the_target():
    one, inside, most, lock = throttle(concurrency=3), [0], [0], threading.Lock()

    def request() -> None:
        with one.slot():
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            with lock:
                inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        for _ in range(24):
            pool.submit(request)
    assert most[0] == 3


def test_late_requests_do_not_accumulate_delay():
    """Twenty requests every 10 ms take 190 ms, also where each thread wakes a little late."""
    one = throttle()
    one.update(200, 0.04, 0.0)
    started = time.monotonic()
    for _ in range(20):
        with one.slot():
            pass
        time.sleep(0.008)
    assert 0.18 <= time.monotonic() - started < 5
    assert one.delay_s == pytest.approx(0.01)


def test_stop_ends_the_wait_for_a_slot():
    stop = threading.Event()
    one = HostThrottle(0.0, stop, 1)
    with ThreadPoolExecutor(1) as pool, one.slot():
        waiting = pool.submit(lambda: one.slot().__enter__())
        stop.set()
        with pytest.raises(StoppedError):
            waiting.result(timeout=5)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (" 120 ", 120), ("0", 0), ("999999999", 999_999_999), ("1234567890", None), ("-1", None), ("soon", None),
        ("", None), (None, None), ("Mon, 23 Nov 2026 12:01:30 GMT", 90), ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        ("Mon, 23 Nov 2026 12:01:30 -0000", 90), ("Mon, 23 Nov 2026 14:01:30 +0200", 90),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert retry_after_s(header, datetime(2026, 11, 23, 12, tzinfo=UTC)) == seconds


def test_retry_after_is_relative_to_the_present():
    assert retry_after_s("Fri, 31 Dec 2199 23:59:59 GMT") > 10 * 365 * 86_400


def test_deferral_delays_the_next_request_and_its_end_is_reported():
    one = throttle()
    one.defer(0.2)
    started = time.monotonic()
    with one.slot() as slot:
        assert 0.2 <= time.monotonic() - started < 5
        time.sleep(0.05)
        assert 0.05 <= slot.seconds < 5
        slot.record_status(200)
    assert one.delay_s == pytest.approx(slot.seconds / 4, abs=0.05)
    assert one.delay_s >= 0.05 / 4


def test_a_refusal_reported_through_a_slot_halves_once():
    one = throttle(delay_s=0.01)
    with one.slot() as first, one.slot() as second:
        first.record_status(429)
        assert one.delay_s == pytest.approx(0.02)
        second.record_status(429)
    assert one.delay_s == pytest.approx(0.02)
