"""The service over HTTP: forms of requests, limits, errors, metrics, the API key; with a fake predictor."""

import base64
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from skincare.product.schema import FIELDS
from skincare.serving.image_urls import ImageUrls
from skincare.serving.limits import Limits
from tests.fake_predictor import FakeLoader
from tests.local_server import ok
from tests.local_server import serving as shop
from tests.serving_fakes import serving

LIMITS = Limits(max_body_mb=0.1, max_images=4, max_queue=6, header_timeout_s=1, body_timeout_s=1, answer_timeout_s=5,
                batch_timeout_s=1.5)  # fmt: skip


@pytest.fixture(scope="module")
def running():
    recorded = []
    with serving(limits=LIMITS, on_answers=recorded.extend) as started:
        started.recorded = recorded
        yield started


def post(running, *names, path="/predict", **options):
    files = [("images", (name, b"abc", "image/jpeg")) for name in names]
    return requests.post(running.url + path, files=files or None, timeout=20, **options)


def test_uploads_are_answered_in_order(running):
    reply = post(running, "a.jpg", "b.jpg", "c.jpg")
    assert reply.status_code == 200
    body = reply.json()
    assert [one["file"] for one in body["predictions"]] == ["a.jpg", "b.jpg", "c.jpg"]
    first = body["predictions"][0]
    assert (first["category"], first["probability"], first["outcome"]) == ("Serum", 0.9, "answered")
    assert [one["label"] for one in first["top"]] == ["Serum", "Mask", "Oil"]
    assert body["predictor"] == "fake"
    assert running.recorded[-1].file == "c.jpg"


def test_products_are_served_where_the_service_has_them(running):
    reply = post(running, "product.jpg")
    assert "product" not in reply.json()["predictions"][0], "a service of categories answers as before"
    refused = post(running, "product.jpg", path="/predict?target=product")
    assert (refused.status_code, refused.json()["error"]) == (400, "target_not_served")
    assert post(running, "a.jpg", path="/predict?target=x").json()["error"] == "bad_parameter"
    running.service.target = "product"
    try:
        one = post(running, "product.jpg").json()["predictions"][0]
        by_category = post(running, "product.jpg", path="/predict?target=category").json()["predictions"][0]
        none = post(running, "a.jpg").json()["predictions"][0]
    finally:
        running.service.target = "category"
    assert set(one["product"]) == set(FIELDS)
    assert (one["product"]["ingredients"], one["product"]["size"]) == (["aqua", "parfum"], None)
    assert one["confidences"] == {"brand": 0.75, "size": 0.25}
    assert "product" not in by_category
    assert (none["product"], none["confidences"]) == (None, None)
    schemas = requests.get(f"{running.url}/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Product"]["properties"]) == set(FIELDS)
    assert "Product" in str(schemas["ImageAnswer"]["properties"]["product"])


@pytest.mark.parametrize("encoded", [base64.b64encode(b"abcd").decode(), "data:image/png;base64,YWJjZA=="])
def test_json_with_base64_is_answered(running, encoded):
    reply = requests.post(f"{running.url}/predict?top=1", json={"images": [{"data": encoded, "name": "x.png"}]})
    (one,) = reply.json()["predictions"]
    assert (one["file"], one["answer"], len(one["top"])) == ("x.png", "4", 1)


def test_the_bytes_of_one_image_are_answered(running):
    reply = requests.post(f"{running.url}/predict", data=b"abcde", headers={"Content-Type": "image/jpeg"})
    assert [one["answer"] for one in reply.json()["predictions"]] == ["5"]


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"json": {"images": []}}, 400, "no_images"),
        ({"json": {"images": "a"}}, 400, "malformed_json"),
        ({"json": {"images": [{"data": "a", "url": "b"}]}}, 400, "malformed_json"),
        ({"json": {"images": [{"data": "ä"}]}}, 400, "malformed_json"),
        ({"json": {"images": [{"data": 3}]}}, 400, "malformed_json"),
        ({"json": [1]}, 400, "malformed_json"),
        ({"data": b"[" * 50_000, "headers": {"Content-Type": "application/json"}}, 400, "malformed_json"),
        ({"json": {"images": [{"url": "http://127.0.0.1/"}]}}, 400, "urls_not_allowed"),
        ({"json": {"images": [{"data": "YQ=="}] * 5}}, 413, "too_many_images"),
        ({"json": {"images": [3] * 5}}, 413, "too_many_images"),
        ({"files": [("images", ("a.jpg", b"a"))] * 5}, 400, "malformed_multipart"),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "malformed_multipart"),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "malformed_multipart"),
        ({"data": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"data": b"", "headers": {"Content-Type": "image/png"}}, 400, "no_images"),
        ({"data": b"x" * 150_000, "headers": {"Content-Type": "image/png"}}, 413, "body_too_large"),
        ({"data": (b"x" * 50_000 for _ in range(3)), "headers": {"Content-Type": "image/png"}}, 413, "body_too_large"),
        ({"params": {"top": "-1"}, "files": [("images", ("a.jpg", b"a"))]}, 400, "bad_parameter"),
    ],
)  # fmt: skip
def test_a_bad_request_gets_a_status_and_a_reason(running, options, status, reason):
    reply = requests.post(f"{running.url}/predict", timeout=10, **options)
    assert (reply.status_code, reply.json()["error"]) == (status, reason)


def test_an_error_contains_no_path_of_the_machine(running):
    reply = post(running, "raise.jpg")
    assert reply.status_code == 500
    assert reply.json()["predictions"][0]["reason"] == "prediction_failed"
    assert "/secret" not in reply.text
    assert requests.get(f"{running.url}/../../etc/passwd").json() == {"error": "not_found", "detail": ""}
    assert requests.get(f"{running.url}/predict").json()["error"] == "method_not_allowed"


def test_an_image_that_raises_does_not_take_its_batch_with_it(running):
    reply = post(running, "a.jpg", "raise.jpg", "b.jpg")
    assert [one["status"] for one in reply.json()["predictions"]] == ["read", "failed", "read"]


@pytest.mark.parametrize("name", ["", "a\u2028\x00b.jpg", "../../etc/passwd", "é" * 500])
def test_hostile_file_names_are_shortened_and_printable(running, name):
    body = {"images": [{"data": "YQ==", "name": name}]}
    (one,) = requests.post(f"{running.url}/predict", json=body).json()["predictions"]
    assert len(one["file"]) <= 200
    assert one["file"].isprintable()


def test_probes_metrics_and_documentation(running):
    assert requests.get(f"{running.url}/healthz").json() == {"status": "ok"}
    assert requests.get(f"{running.url}/readyz").json()["status"] == "ready"
    post(running, "a.jpg")
    text = requests.get(f"{running.url}/metrics").text
    for name in (
        'skincare_request_seconds_bucket{code="200",le="0.1"}', "skincare_batch_size_bucket", "skincare_queue_images",
        'skincare_answers_total{category="Serum",status="read"}', "skincare_abstentions_total",
        'skincare_rejected_total{reason="body_too_large"}',
    ):  # fmt: skip
        assert name in text
    described = requests.get(f"{running.url}/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/healthz", "/readyz", "/metrics"}
    assert "multipart/form-data" in described["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert "http" not in requests.get(f"{running.url}/docs").text


def test_every_response_has_the_security_headers(running):
    for path in ("/", "/docs", "/healthz", "/nothing"):
        headers = requests.get(running.url + path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_full_queue_answers_503_with_retry_after_and_recovers(running):
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda i: post(running, f"slow{i}.jpg"), range(12)))
    statuses = [one.status_code for one in replies]
    assert set(statuses) == {200, 503}
    assert all(int(one.headers["Retry-After"]) >= 1 for one in replies if one.status_code == 503)
    assert post(running, "a.jpg").status_code == 200


def test_a_slow_body_is_ended_with_408(running):
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\na")
        assert b" 408 " in client.recv(1000).split(b"\r\n")[0]


def test_idle_connections_are_closed_and_do_not_stop_others(running):
    clients = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(1000)]
    try:
        started = time.monotonic()
        assert post(running, "a.jpg").status_code == 200
        assert time.monotonic() - started < 2
        clients[-1].settimeout(5)
        assert clients[-1].recv(1) == b""
    finally:
        for one in clients:
            one.close()


def test_slow_headers_are_ended(running):
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.settimeout(5)
        client.sendall(b"POST /predict HTTP/1.1\r\nHost:")
        assert client.recv(1) == b""


def test_the_api_key_is_required_and_compared():
    with serving(api_key="ä secret") as running:
        assert post(running, "a.jpg").json()["error"] == "unauthorized"
        assert requests.get(f"{running.url}/metrics").status_code == 401
        assert requests.get(f"{running.url}/healthz").status_code == 200
        for headers in ({"X-API-Key": "wrong"}, {"Authorization": "Bearer "}, {"Authorization": "Basic secret"}):
            assert post(running, "a.jpg", headers=headers).status_code == 401
    with serving(api_key="secret") as running:
        for headers in ({"X-API-Key": "secret"}, {"Authorization": "bearer secret"}):
            assert post(running, "a.jpg", headers=headers).status_code == 200
        assert "secret" not in repr(running.service)


def test_urls_are_fetched_within_the_guards():
    private = ImageUrls(1000, allow_private=True)
    answers = {"/a.jpg": ok(b"abcdef"), "/large.jpg": ok(b"a" * 2000), "/robots.txt": ok(b"")}
    with shop(answers) as source, serving(urls=private) as running:
        body = {"images": [{"url": f"{source.url}/{name}"} for name in ("a.jpg", "large.jpg", "none.jpg")]}
        body["images"].append({"url": "file:///etc/passwd"})
        found = requests.post(f"{running.url}/predict", json=body).json()["predictions"]
    assert [one["answer"] for one in found] == ["6", "", "", ""]
    reasons = [one["reason"] for one in found[1:]]
    assert [one.partition(":")[0] for one in reasons] == ["too_large", "http_404", "not_a_web_address"]


def test_private_addresses_are_refused():
    with shop({"/a.jpg": ok(b"abc")}) as source, serving(urls=ImageUrls(1000)) as running:
        body = {"images": [{"url": f"{source.url}/a.jpg"}, {"url": "http://169.254.169.254/latest/"}]}
        reply = requests.post(f"{running.url}/predict", json=body)
        assert reply.status_code == 422
        assert reply.json()["predictions"][0]["reason"] == "private_address"
        assert not source.count


def test_slow_urls_end_with_503_and_take_no_place_for_ever():
    limits = Limits(answer_timeout_s=0.3, max_queue=3)
    answers = {"/slow.jpg": lambda request: (time.sleep(1), request.reply(b"a")), "/robots.txt": ok(b"")}
    with shop(answers) as source, serving(urls=ImageUrls(1000, allow_private=True), limits=limits) as running:

        def post_slow(n=2):
            return requests.post(f"{running.url}/predict", json={"images": [{"url": f"{source.url}/slow.jpg"}] * n})

        with ThreadPoolExecutor(2) as threads:
            replies = list(threads.map(post_slow, [2, 2]))
        assert sorted(one.json()["error"] for one in replies) == ["not_answered_in_time", "overloaded"]
        assert {one.status_code for one in replies} == {503}
        assert all(int(one.headers["Retry-After"]) for one in replies)
        assert post_slow(3).json()["error"] == "not_answered_in_time", "the places are free again"


def test_fetched_images_count_as_memory():
    limits = Limits(max_buffered_mb=0.001)
    answers, urls = {"/a.jpg": ok(b"a" * 800), "/robots.txt": ok(b"")}, ImageUrls(1000, allow_private=True)
    with shop(answers) as source, serving(urls=urls, limits=limits) as running:
        reply = requests.post(f"{running.url}/predict", json={"images": [{"url": f"{source.url}/a.jpg"}] * 2})
        reasons = sorted(one["reason"] for one in reply.json()["predictions"])
        assert reasons == ["", "overloaded: too many images in memory"]
        assert running.service._budget.n_bytes == 0


def test_bodies_beyond_the_memory_budget_get_503(running):
    small = Limits(max_buffered_mb=0.001)
    with serving(limits=small) as tight:
        reply = requests.post(f"{tight.url}/predict", data=b"x" * 5000, headers={"Content-Type": "image/png"})
        assert (reply.status_code, reply.json()["error"]) == (503, "overloaded")
        assert post(tight, "a.jpg").status_code == 200
        assert tight.service._budget.n_bytes == 0


def test_what_was_accepted_is_answered_before_the_end():
    replies = []
    with serving(FakeLoader(seconds=0.3), max_batch=1) as running:
        threads = [threading.Thread(target=lambda: replies.append(post(running, "a.jpg"))) for _ in range(3)]
        for one in threads:
            one.start()
        while running.service.batcher.n_waiting < 2:
            time.sleep(0.01)
    for one in threads:
        one.join()
    assert [one.status_code for one in replies] == [200, 200, 200]


def test_limits_that_are_no_positive_numbers_are_refused():
    with pytest.raises(Exception, match="max-queue"):
        Limits(max_queue=0).check()
    assert json.dumps(Limits().max_pixels)
