"""One pool per host: hosts do not wait for each other, failures abandon a host, an exception ends the run."""

import threading

import pytest

from skincare.catalogue import Product
from skincare.collecting.host_pools import FAILURE_WINDOW, MAX_CONSECUTIVE_FAILURES, FailureMonitor, HostPools, Outcome
from skincare.collecting.scrape_state import Failure
from skincare.collecting.scrape_work import WorkItem


def work_items(n: int, host: str = "a"):
    return (
        WorkItem(Product(str(i), f"https://{host}.example/{i}", "x", "x", "Oil"), is_listed=False) for i in range(n)
    )


def outcomes(collect, n_threads: int = 3, **n_by_host: int) -> list[Outcome]:
    host_pools = HostPools(
        {host: work_items(n, host) for host, n in n_by_host.items()}, dict.fromkeys(n_by_host, n_threads), collect, list
    )
    return list(host_pools.outcomes())


def test_every_product_of_every_host_has_one_outcome():
    found = outcomes(lambda item: Failure(item.product.product_id), a=50, b=7, c=1)
    assert sorted((one.host, int(one.failure.reason)) for one in found) == [
        *(("a", i) for i in range(50)), *(("b", i) for i in range(7)), ("c", 0),
    ]  # fmt: skip
    assert outcomes(lambda item: None) == []


def test_a_hanging_host_does_not_delay_the_others():
    others_are_done, n_done = threading.Event(), []

    def collect(item: WorkItem) -> None:
        if "//slow." in item.product.url:
            assert others_are_done.wait(10)
        else:
            n_done.append(item)
            if len(n_done) == 40:
                others_are_done.set()

    assert len(outcomes(collect, slow=3, quick=40)) == 43


def test_a_product_is_taken_only_by_a_free_thread():
    taken, n_taken, barrier = [], [], threading.Barrier(4, action=lambda: n_taken.append(len(taken)))

    def counted_items():
        for item in work_items(40):
            taken.append(item)
            yield item

    host_pools = HostPools({"a": counted_items()}, {"a": 4}, lambda _: barrier.wait(10) and None, list)
    assert len(list(host_pools.outcomes())) == 40
    # Up to three of the four threads may have taken their next product when the barrier records the number.
    assert [4 * i <= n <= 4 * i + 3 for i, n in enumerate(n_taken, start=1)] == [True] * 10


def test_an_exception_in_a_thread_is_raised_and_stops_the_others():
    stopped = threading.Event()

    def collect(item: WorkItem) -> None:
        if item.product.product_id == "5":
            raise OSError("disk full")
        assert int(item.product.product_id) < 5 or stopped.wait(10)

    host_pools = HostPools({"a": work_items(10_000)}, {"a": 2}, collect, stopped.set)
    with pytest.raises(OSError, match="disk full"):
        list(host_pools.outcomes())
    assert stopped.is_set()


def recorded(*reasons: str) -> list[str]:
    monitor = FailureMonitor()
    return [monitor.record(Failure(reason) if reason else None) for reason in reasons]


def test_consecutive_failures_abandon_a_host():
    found = recorded(*["http_500", "timeout"] * MAX_CONSECUTIVE_FAILURES)
    assert not any(found[: MAX_CONSECUTIVE_FAILURES - 1])
    assert found[MAX_CONSECUTIVE_FAILURES - 1] == "50 products in a row failed (http_500 25, timeout 25)"


def test_a_large_share_of_failures_abandons_a_host():
    found = recorded(*["timeout", "", "http_503", ""] * FAILURE_WINDOW)
    assert not any(found[: FAILURE_WINDOW - 1])
    assert found[FAILURE_WINDOW - 1] == "100 of the last 200 products failed (http_503 50, timeout 50)"


@pytest.mark.parametrize("reasons", [["http_404"] * 1000, ["http_500", "http_500", "", "", ""] * 200])
def test_missing_pages_and_a_small_share_of_failures_abandon_no_host(reasons):
    assert not any(recorded(*reasons))
