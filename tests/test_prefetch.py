"""One item is loaded ahead in a thread, which never runs next to a load of the caller."""

import threading
import time

import pytest

from skincare.training.prefetch import Prefetcher


def test_one_item_at_most_is_loaded_ahead():
    loaded = []
    prefetcher = Prefetcher(lambda key: loaded.append(key) or key)
    for key in (1, 2, 3):
        prefetcher.start(key)
    assert prefetcher.take(1) == 1
    assert loaded == [1]


def test_every_started_item_is_loaded_in_the_background():
    in_background = []
    prefetcher = Prefetcher(lambda _: in_background.append(threading.current_thread().name.startswith("prefetch")))
    for key in range(3):
        prefetcher.start(key)
        prefetcher.take(key)
    assert in_background == [True] * 3


def test_an_item_is_loaded_while_the_caller_works():
    released = threading.Event()
    prefetcher = Prefetcher(lambda key: released.wait(5) and key)
    prefetcher.start("a")
    released.set()  # would not be reached if `start` waited
    assert prefetcher.take("a") == "a"


def test_another_item_is_loaded_only_after_the_dropped_one_has_ended():
    has_started, ended = threading.Event(), []

    def load(key):
        if key == "dropped":
            has_started.set()
            time.sleep(0.05)
            ended.append(key)
        else:
            assert ended == ["dropped"], "two threads share the caches"
        return key

    prefetcher = Prefetcher(load)
    prefetcher.start("dropped")
    assert has_started.wait(5)
    assert prefetcher.take("needed") == "needed"


def test_an_error_is_raised_by_take_and_only_for_its_own_item():
    prefetcher = Prefetcher({"a": 1}.__getitem__)
    prefetcher.start("missing")
    with pytest.raises(KeyError):
        prefetcher.take("missing")
    prefetcher.start("missing")
    assert prefetcher.take("a") == 1
