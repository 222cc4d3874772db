import threading

import pytest

from skincare.training.prefetch import Prefetcher


def test_one_item_at_most_is_loaded_ahead():
    loaded = []
    prefetcher = Prefetcher(lambda key: loaded.append(key) or key)
    for key in (1, 2, 3):
        prefetcher.start(key)
    assert prefetcher.take(1) == 1
    assert loaded == [1]


def test_an_item_is_loaded_while_the_caller_works():
    released = threading.Event()
    prefetcher = Prefetcher(lambda key: released.wait(5) and key)
    prefetcher.start("a")
    released.set()  # would not be reached if `start` waited
    assert prefetcher.take("a") == "a"


def test_another_item_is_loaded_only_after_the_dropped_one_has_ended():
    running = []

    def load(key):
        running.append(key)
        assert len(running) == 1, "two threads share the caches"
        running.pop()
        return key

    prefetcher = Prefetcher(load)
    for key in range(20):
        prefetcher.start(-1 - key)
        assert prefetcher.take(key) == key


def test_an_error_is_raised_by_take_and_only_for_its_own_item():
    prefetcher = Prefetcher({"a": 1}.__getitem__)
    prefetcher.start("missing")
    with pytest.raises(KeyError):
        prefetcher.take("missing")
    prefetcher.start("missing")
    assert prefetcher.take("a") == 1
