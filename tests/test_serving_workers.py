"""Workers that die, hang or cannot load, and the replacement of the model while the service answers."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from skincare.serving.limits import Limits
from skincare.serving.worker import WorkerLoadError
from tests.fake_predictor import FakeLoader
from tests.serving_fakes import serving
from tests.test_serving import post

LIMITS = Limits(batch_timeout_s=1.5, answer_timeout_s=10)


@pytest.fixture
def version(tmp_path):
    file = tmp_path / "version"
    file.write_text("one")
    return file


def wait_until(holds, seconds=10.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_worker_is_replaced_and_its_image_still_answered():
    with serving(limits=LIMITS) as running, ThreadPoolExecutor(1) as pool:
        future = pool.submit(post, running, "slow.jpg")
        time.sleep(0.4)
        (pid,) = running.service.batcher.worker_pids
        os.kill(pid, signal.SIGKILL)
        assert future.result(20).json()["predictions"][0]["status"] == "read"
        assert running.service.batcher.worker_pids != [pid]
        assert 'worker_restarts_total{reason="worker_crashed"} 1.0' in requests.get(f"{running.url}/metrics").text


def test_an_image_that_kills_its_worker_fails_alone():
    with serving(limits=LIMITS) as running:
        reply = post(running, "a.jpg", "crash.jpg", "b.jpg")
        found = [(one["status"], one["reason"]) for one in reply.json()["predictions"]]
        assert found == [("read", ""), ("failed", "worker_crashed"), ("read", "")]
        assert post(running, "crash.jpg").status_code == 500
        assert post(running, "a.jpg").status_code == 200


def test_a_hanging_worker_is_killed_and_its_image_answered_with_an_error():
    with serving(limits=LIMITS) as running:
        started = time.monotonic()
        (one,) = post(running, "hang.jpg").json()["predictions"]
        assert (one["status"], one["reason"]) == ("failed", "worker_timeout")
        assert time.monotonic() - started < 5
        assert post(running, "a.jpg").status_code == 200


def test_a_reload_replaces_the_model_without_losing_a_request(version):
    with serving(FakeLoader(version, seconds=0.02)) as running:
        replies, ends = [], threading.Event()

        def ask():
            while not ends.is_set():
                replies.append(post(running, "a.jpg"))

        thread = threading.Thread(target=ask)
        thread.start()
        (old,) = running.service.batcher.worker_pids
        version.write_text("two")
        assert running.call(running.service.batcher.reload())
        wait_until(lambda: replies and replies[-1].json().get("predictor") == "two")
        ends.set()
        thread.join()
        assert {one.status_code for one in replies} == {200}
        assert [one.json()["predictor"] for one in (replies[0], replies[-1])] == ["one", "two"]
        with pytest.raises(ProcessLookupError):
            os.kill(old, 0)


def test_a_broken_new_version_is_refused_and_the_old_one_stays(version):
    with serving(FakeLoader(version)) as running:
        pids = running.service.batcher.worker_pids
        version.unlink()
        assert not running.call(running.service.batcher.reload())
        assert running.service.batcher.worker_pids == pids
        assert post(running, "a.jpg").json()["predictor"] == "one"
        assert 'reloads_total{result="refused"} 1.0' in requests.get(f"{running.url}/metrics").text


def test_while_no_worker_can_load_requests_are_answered_with_503(version):
    limits = Limits(answer_timeout_s=1)
    with serving(FakeLoader(version), limits) as running:
        version.unlink()
        assert post(running, "crash.jpg").status_code == 503
        assert requests.get(f"{running.url}/readyz").status_code == 503
        version.write_text("back")
        wait_until(lambda: requests.get(f"{running.url}/readyz").status_code == 200)
        assert post(running, "a.jpg").json()["predictor"] == "back"


def test_a_service_that_cannot_load_does_not_start(tmp_path):
    with pytest.raises(WorkerLoadError, match="FileNotFoundError"), serving(FakeLoader(tmp_path / "none")):
        pass


def test_waiting_images_are_batched():
    with serving(FakeLoader(seconds=0.05), max_batch=4) as running, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda i: post(running, f"{i}.jpg"), range(12)))
        text = requests.get(f"{running.url}/metrics").text
        sizes = {
            line.split()[0]: float(line.split()[1])
            for line in text.splitlines()
            if line.startswith("skincare_batch_size_")
        }
        assert sizes["skincare_batch_size_sum"] == 12
        assert sizes["skincare_batch_size_count"] <= 6
        assert sizes['skincare_batch_size_bucket{le="4.0"}'] == sizes["skincare_batch_size_count"]


def test_images_that_could_not_be_answered_in_time_are_refused_at_once():
    limits = Limits(answer_timeout_s=2)
    with serving(FakeLoader(seconds=0.4), limits, max_batch=1) as running, ThreadPoolExecutor(10) as pool:
        post(running, "a.jpg")
        replies = list(pool.map(lambda i: post(running, f"{i}.jpg"), range(10)))
    assert {one.status_code for one in replies} == {200, 503}
    assert {one.json()["error"] for one in replies if one.status_code == 503} == {"overloaded"}
