"""HTTP client: retries, delays, robots.txt, redirects, private addresses, and unbounded responses."""

import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skincare.collecting import transport
from skincare.collecting.fetch_errors import FetchError
from skincare.collecting.http_client import FetchLimits, HttpClient
from skincare.collecting.throttle import HostThrottle, StoppedError, retry_after_s
from skincare.collecting.transport import is_public
from tests.local_server import Handler, LocalServer, Request, in_sequence, ok, serving, status

QUICK = FetchLimits(
    backoff_min_s=0.001, backoff_max_s=0.01, connect_timeout_s=2, read_timeout_s=0.5, total_timeout_s=1, max_pause_s=5
)
MAX_BYTES = 1000


def local_client(**options: object) -> HttpClient:
    return HttpClient(**{"allow_private": True, "limits": QUICK, **options})  # type: ignore[arg-type]


def fail(answer: Handler, **options: object) -> tuple[FetchError, LocalServer]:
    with serving({"/x": answer}) as server, local_client(**options) as client:
        with pytest.raises(FetchError) as caught:
            client.get(f"{server.url}/x", MAX_BYTES)
        return caught.value, server


def raw(content: bytes, *, pause_s: float = 0.0) -> Handler:
    """Send raw bytes and close; with a pause, one byte per packet."""

    def answer(request: Request) -> None:
        for packet in [content[n : n + 1] for n in range(len(content))] if pause_s else [content]:
            request.wfile.write(packet)
            request.wfile.flush()
            time.sleep(pause_s)
        request.close_connection = True

    return answer


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_transient_errors_are_retried(code: int) -> None:
    with serving({"/x": in_sequence(status(code), status(code), ok())}) as server, local_client() as client:
        answer = client.get(f"{server.url}/x", MAX_BYTES)
    assert (answer.content, answer.fetch_record.attempts, answer.content_type) == (b"fine", 3, "text/html")


@pytest.mark.parametrize("code", [204, 400, 401, 403, 404, 410, 451])
def test_permanent_errors_are_not_retried(code: int) -> None:
    error, server = fail(status(code))
    assert (error.reason, error.status, error.fetch_record.attempts, server.count["/x"]) == (f"http_{code}", code, 1, 1)


def test_retries_end_after_five_attempts() -> None:
    error, server = fail(status(503))
    assert (error.reason, error.fetch_record.attempts, server.count["/x"]) == ("http_503", 5, 5)


def test_a_closed_port_is_a_connection_error() -> None:
    with socket.socket() as held, local_client() as client:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(FetchError) as caught:
            client.get(f"http://127.0.0.1:{held.getsockname()[1]}/x", MAX_BYTES)
    assert (caught.value.reason, caught.value.detail, caught.value.fetch_record.attempts) == (
        "connection_error",
        "refused",
        5,
    )


def test_a_truncated_response_is_retried() -> None:
    cut = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour")
    with serving({"/x": in_sequence(cut, ok())}) as server, local_client() as client:
        assert client.get(f"{server.url}/x", MAX_BYTES).fetch_record.attempts == 2


def test_retry_after_defers_every_thread_of_the_host() -> None:
    answers = {"/x": in_sequence(status(429, Retry_After="1"), ok()), "/y": ok()}
    with serving(answers) as server, local_client() as client, ThreadPoolExecutor(1) as pool:
        client.get(f"{server.url}/y", MAX_BYTES)
        first = pool.submit(client.get, f"{server.url}/x", MAX_BYTES)
        while not server.count["/x"]:
            time.sleep(0.001)
        time.sleep(0.1)
        started = time.monotonic()
        client.get(f"{server.url}/y", MAX_BYTES)
        assert time.monotonic() - started > 0.6
        assert first.result().fetch_record.attempts == 2


def test_a_retry_after_above_the_limit_is_not_retried() -> None:
    error, server = fail(status(503, Retry_After="86400"))
    assert (error.reason, error.detail, server.count["/x"]) == ("http_503", "asks for too long a pause", 1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Mon, 23 Nov 2026 12:01:30 GMT", 90.0),
        ("Mon, 23 Nov 2026 14:01:30 +0200", 90.0),
        ("Mon, 23 Nov 2026 12:01:30", 90.0),
        ("Sun, 22 Nov 2026 12:00:00 GMT", 0.0),
        *((text, None) for text in ("", "-5", "1.5", "soon", "9" * 400, "Mon, 99 Nov 2026 12:00:00 GMT", "１２", None)),
    ],
)
def test_retry_after_is_parsed_as_seconds_or_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, datetime(2026, 11, 23, 12, 0, tzinfo=UTC)) == seconds


def pass_through(throttle: HostThrottle, passed: list[float]) -> None:
    with throttle.slot():
        passed.append(time.monotonic())


def test_the_delay_of_a_host_holds_across_threads() -> None:
    throttle, passed = HostThrottle(0.03, threading.Event()), []
    with ThreadPoolExecutor(8) as pool:
        for _ in range(12):
            pool.submit(pass_through, throttle, passed)
    assert min(later - earlier for earlier, later in pairwise(sorted(passed))) > 0.02


def test_stop_interrupts_all_waits() -> None:
    with (
        serving({"/x": status(503, Retry_After="4")}) as server,
        local_client() as client,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(client.get, f"{server.url}/x", MAX_BYTES)
        time.sleep(0.2)
        client.stop()
        with pytest.raises(StoppedError):
            waiting.result(timeout=1)


def test_robots_txt_is_fetched_once_and_obeyed() -> None:
    rules = b"User-agent: *\nDisallow: /private\nCrawl-delay: 0.1\n"
    with serving({"/robots.txt": ok(rules), "/x": ok(), "/private": ok()}) as server, local_client() as client:
        started = time.monotonic()
        for _ in range(3):
            client.get(f"{server.url}/x", MAX_BYTES)
        assert time.monotonic() - started > 0.2
        with pytest.raises(FetchError, match="robots_disallowed"):
            client.get(f"{server.url}/private", MAX_BYTES)
    assert (server.count["/robots.txt"], server.count["/private"]) == (1, 0)


def test_redirects_obey_robots_txt() -> None:
    rules = b"User-agent: *\nDisallow: /private\n"
    answers = {"/robots.txt": ok(rules), "/x": status(302, Location="/private"), "/private": ok()}
    with serving(answers) as server, local_client() as client, pytest.raises(FetchError, match="robots_disallowed"):
        client.get(f"{server.url}/x", MAX_BYTES)
    assert server.count["/private"] == 0


def test_a_rule_for_this_user_agent_takes_precedence() -> None:
    rules = b"User-agent: *\nDisallow:\n\nUser-agent: Skincare-Collector\nDisallow: /\n"
    answers = {"/robots.txt": ok(rules), "/x": ok()}
    with serving(answers) as server, local_client() as client, pytest.raises(FetchError, match="robots_disallowed"):
        client.get(f"{server.url}/x", MAX_BYTES)


@pytest.mark.parametrize(("code", "reason"), [(404, None), (403, None), (500, "http_500"), (503, "http_503")])
def test_a_missing_robots_txt_allows_all_and_a_failing_one_nothing(code: int, reason: str | None) -> None:
    with serving({"/robots.txt": status(code), "/x": ok()}) as server, local_client() as client:
        if reason is None:
            assert client.get(f"{server.url}/x", MAX_BYTES).content == b"fine"
        else:
            with pytest.raises(FetchError, match=reason):
                client.get(f"{server.url}/x", MAX_BYTES)
    assert server.count["/x"] == (reason is None)


def test_redirects_are_followed_and_the_final_url_returned() -> None:
    answers = {"/x": status(301, Location="/y?a=1#b"), "/y?a=1": status(308, Location="z"), "/z": ok()}
    with serving(answers) as server, local_client() as client:
        assert client.get(f"{server.url}/x", MAX_BYTES).url == f"{server.url}/z"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/x", "too_many_redirects"),
        ("file:///etc/passwd", "bad_redirect"),
        ("ftp://127.0.0.1/x", "bad_redirect"),
        ("http://user:pass@127.0.0.1/x", "bad_redirect"),
        ("http://[", "bad_redirect"),
        ("http://127.0.0.1:99999/", "bad_redirect"),
        ("//" + "a" * 5000, "bad_redirect"),
    ],
)
def test_redirects_are_bounded_and_limited_to_http(location: str, reason: str) -> None:
    error, server = fail(status(302, Location=location))
    assert error.reason == reason
    assert server.count["/x"] <= QUICK.max_redirects + 1


def test_a_private_address_is_rejected_before_sending() -> None:
    error, server = fail(ok(), allow_private=False)
    assert (error.reason, error.fetch_record.attempts, sum(server.count.values())) == ("private_address", 1, 0)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "0.0.0.0"])
def test_other_names_of_localhost_are_rejected(host: str) -> None:
    with (
        serving({"/x": ok()}) as server,
        local_client(allow_private=False) as client,
        pytest.raises(FetchError) as caught,
    ):
        client.get(f"http://{host}:{server.server_address[1]}/x", MAX_BYTES)
    assert caught.value.reason == "private_address"
    assert not server.count


def test_closed_ports_of_a_private_address_give_the_reason_of_open_ones() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with local_client(allow_private=False) as client, pytest.raises(FetchError, match="private_address"):
        client.get(f"http://127.0.0.1:{port}/x", MAX_BYTES)


def test_a_redirect_to_a_private_address_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this test 127.0.0.1 is the public address and 127.0.0.2 the private one."""
    monkeypatch.setattr(transport, "is_public", lambda address: address == "127.0.0.1")
    with serving({"/secret": ok()}, host="127.0.0.2") as inside:
        error, _ = fail(status(302, Location=f"{inside.url}/secret"), allow_private=False)
    assert (error.reason, sum(inside.count.values())) == ("private_address", 0)


def test_the_resolved_address_is_checked_at_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name resolves to a public address (127.0.0.1 here) until the last connection is made."""
    monkeypatch.setattr(transport, "is_public", lambda address: address == "127.0.0.1")
    addresses, real = [*["127.0.0.1"] * 5, "127.0.0.2"], socket.getaddrinfo

    def resolve(host: str, *rest: object, **options: object) -> object:
        return real(addresses.pop(0) if host == "rebinding.example" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    answers = {path: ok(Connection="close") for path in ("/robots.txt", "/x", "/y")}
    with serving(answers, host="0.0.0.0") as server, local_client(allow_private=False) as client:
        url = f"http://rebinding.example:{server.server_address[1]}"
        assert client.get(f"{url}/x", MAX_BYTES).content == b"fine"
        with pytest.raises(FetchError, match="private_address"):
            client.get(f"{url}/y", MAX_BYTES)
    assert (addresses, server.count["/y"]) == ([], 0)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
     "2002:7f00:0001::", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808", "::7f00:1", "2001:0:1::1",
     "fe80::1%eth0", "no address"],
)  # fmt: skip
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "151.101.1.69", "2606:4700::6810:84e5", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"x" * (MAX_BYTES + 1)),
        raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 5000),
        raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n" + b"0\r\n\r\n"
        ),
        ok(gzip.compress(b"x" * 10_000_000), Content_Encoding="gzip"),
        ok(gzip.compress(gzip.compress(b"x" * 50_000_000)), Content_Encoding="gzip, gzip"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
    ],
    ids=["announced", "until-close", "chunked", "gzip-bomb", "bomb-in-bomb", "promised"],
)
def test_responses_above_the_size_limit_are_rejected(answer: Handler) -> None:
    error, server = fail(answer)
    assert (error.reason, error.fetch_record.attempts, server.count["/x"]) == ("too_large", 1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"x" * MAX_BYTES),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"),
        ok(gzip.compress(b"x" * MAX_BYTES), Content_Encoding="gzip"),
        raw(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * MAX_BYTES),
    ],
    ids=["announced", "chunked", "gzip", "until-close"],
)
def test_responses_at_the_size_limit_are_read_completely(answer: Handler) -> None:
    with serving({"/x": answer}) as server, local_client() as client:
        assert client.get(f"{server.url}/x", MAX_BYTES).content == b"x" * MAX_BYTES


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"HTTP/1.1 200 OK\r\nX-Header: " + b"x" * 60, pause_s=0.05),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"x" * 60, pause_s=0.05),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 60, pause_s=0.05),
        raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 60, pause_s=0.05),
    ],
    ids=["headers", "body", "chunk-size", "until-close"],
)
def test_slow_responses_end_at_the_total_timeout(answer: Handler) -> None:
    started = time.monotonic()
    error, _ = fail(answer, limits=replace(QUICK, total_timeout_s=0.4))
    assert (error.reason, error.fetch_record.attempts) == ("too_slow", 1)
    assert time.monotonic() - started < 3


def test_a_read_timeout_is_retried() -> None:
    with serving({"/x": in_sequence(lambda _: time.sleep(0.8), ok())}) as server, local_client() as client:
        assert client.get(f"{server.url}/x", MAX_BYTES).fetch_record.attempts == 2


def test_the_user_agent_is_sent_and_cookies_are_not() -> None:
    with serving({"/x": ok(Set_Cookie="a=b")}) as server, local_client(contact="me@example.org") as client:
        client.get(f"{server.url}/x", MAX_BYTES)
        client.get(f"{server.url}/x", MAX_BYTES)
    assert {headers["User-Agent"] for headers in server.headers_seen} == {
        "skincare-collector/1.0 (product photo research; me@example.org)"
    }
    assert not any("Cookie" in headers for headers in server.headers_seen)


def check_any_answer(content: bytes) -> None:
    with (
        serving({"/x": raw(content)}) as server,
        local_client(limits=FetchLimits(attempts=1, read_timeout_s=0.3)) as client,
    ):
        try:
            answer = client.get(f"{server.url}/x", MAX_BYTES)
        except FetchError as error:
            assert error.reason
        else:
            assert len(answer.content) <= MAX_BYTES


HEADERS = [b"Content-Length: ", b"-1", b"5", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n",
           b"Location: ", b"http://[", b"\r\n", b"\r\n\r\n", b"Retry-After: x\r\n", b"ffffffffffff\r\n",
           b"Set-Cookie: \xff\r\n", b"\0"]  # fmt: skip
STATUS_LINES = [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\n", b"HTTP/1.1 503 \r\n", b"HTTP/9 \xff\r\n"]
ANSWERS = st.binary(max_size=200) | st.tuples(
    st.sampled_from(STATUS_LINES),
    st.lists(st.sampled_from(HEADERS) | st.binary(max_size=5), max_size=12).map(b"".join),
).map(b"".join)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANSWERS)
def test_any_response_gives_bytes_or_a_reason(content: bytes) -> None:
    check_any_answer(content)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANSWERS)
def test_any_of_200_responses_gives_bytes_or_a_reason(content: bytes) -> None:
    check_any_answer(content)
