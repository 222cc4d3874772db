"""A polite, bounded, thread-safe HTTP client: a URL in, the bytes of its response or a FetchError with a reason out.

Every request waits for a slot of its host's throttle, obeys robots.txt, and is limited in size and time; every redirect
is checked like a first request. Transient errors (408, 425, 429, 5xx, connection errors) are retried with exponential
back-off; 404 and 410 are not.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self
from urllib.parse import urljoin

import requests
import urllib3
from protego import Protego
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from skincare import urls
from skincare.collecting.fetch_errors import FetchError, total_timeout_error, transport_error
from skincare.collecting.fetch_record import FetchRecord
from skincare.collecting.throttle import HostThrottle, RequestSlot, pause, retry_after_s
from skincare.collecting.transport import ConnectionGuard, PrivateAddressError, guarded_session

logger = logging.getLogger(__name__)

AGENT: Final = "skincare-collector"
_TRANSIENT: Final = {408, 425, 429}
# The minimum that a crawler must parse. Source: RFC 9309, section 2.5.
_MAX_ROBOTS_BYTES: Final = 512_000
_CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True)
class FetchLimits:
    """Timeouts, attempts and exponential back-off."""

    attempts: int = 5
    backoff_min_s: float = 1.0
    backoff_max_s: float = 10.0
    connect_timeout_s: float = 10.0
    # The read timeout holds for each packet, the total timeout for the whole response.
    read_timeout_s: float = 30.0
    total_timeout_s: float = 120.0
    max_redirects: int = 5
    # A longer Retry-After or Crawl-delay ends the fetch with an error.
    max_pause_s: float = 300.0


@dataclass(frozen=True)
class HttpResponse:
    """The content of a URL; `url` is the address after redirects."""

    url: str
    content: bytes
    content_type: str
    fetch_record: FetchRecord

    @property
    def is_not_modified(self) -> bool:
        """Return whether the server answered a conditional request with 304; `content` is empty then."""
        return self.fetch_record.http_status == 304


_NO_VALIDATORS: Final = FetchRecord()


@dataclass(frozen=True)
class _Received:
    content: bytes = b""
    content_type: str = ""
    location: str | None = None
    status: int = 200
    validators: FetchRecord = _NO_VALIDATORS


@dataclass
class _Fetch:
    """One URL to fetch; `seconds` adds up over all attempts and redirects."""

    url: str
    max_bytes: int
    conditional_headers: Mapping[str, str]
    seconds: float = 0.0


class HttpClient:
    """Fetches URLs from any number of threads: one session per thread, one throttle and one robots.txt per host."""

    def __init__(
        self,
        contact: str = "",
        *,
        delay_s: float = 0.0,
        concurrency: int = 10,
        allow_private: bool = False,
        limits: FetchLimits | None = None,
    ) -> None:
        self.n_requests = 0
        self._user_agent = f"{AGENT}/1.0 (product photo research; {contact or 'no contact given'})"
        self._delay_s = delay_s
        self._concurrency = concurrency
        self._allow_private = allow_private
        self._limits = limits or FetchLimits()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._throttles: dict[str, HostThrottle] = {}
        self._robots: dict[str, _HostRobots] = {}
        self._thread = threading.local()
        self._sessions: list[requests.Session] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.stop()
        for session in self._sessions:
            session.close()

    def stop(self) -> None:
        """End every wait in every thread with StoppedError."""
        self._stop.set()

    def raise_min_delay(self, host: str, delay_s: float) -> None:
        """Raise the minimum delay between two requests to a host, given as its origin."""
        self._throttle(host).raise_min_delay(delay_s)

    def get(self, url: str, max_bytes: int, previous: FetchRecord | None = None) -> HttpResponse:
        """Return the response of a canonical URL; `previous` makes the request conditional on its validators.

        Raises FetchError with a reason (http_404, timeout, too_slow, too_large, connection_error, private_address,
        robots_disallowed, too_many_redirects, bad_redirect ...) or StoppedError.
        """
        limits = self._limits
        fetch = _Fetch(url, max_bytes, previous.conditional_headers if previous else {})
        retrying = Retrying(
            stop=stop_after_attempt(limits.attempts),
            wait=wait_exponential(limits.backoff_min_s, min=limits.backoff_min_s, max=limits.backoff_max_s),
            retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.is_transient),
            sleep=lambda seconds: pause(seconds, self._stop),
            reraise=True,
        )
        try:
            final_url, reply = retrying(self._follow, fetch)
        except FetchError as error:
            error.fetch_record = FetchRecord(error.status, retrying.statistics["attempt_number"], fetch.seconds)
            raise
        cost = {"attempts": retrying.statistics["attempt_number"], "seconds": fetch.seconds}
        return HttpResponse(
            final_url, reply.content, reply.content_type, replace(reply.validators, http_status=reply.status, **cost)
        )

    def _follow(self, fetch: _Fetch, *, obey_robots: bool = True) -> tuple[str, _Received]:
        url = fetch.url
        for _ in range(self._limits.max_redirects + 1):
            if obey_robots:
                self._check_robots(url)
            reply = self._request(url, fetch)
            if reply.location is None:
                return url, reply
            try:
                url = urls.canonical_url(urljoin(url, reply.location), keep_query=True)
            except ValueError as error:
                raise FetchError("bad_redirect", "no usable web address") from error
        raise FetchError("too_many_redirects", f"more than {self._limits.max_redirects}")

    def _request(self, url: str, fetch: _Fetch) -> _Received:
        with self._throttle(urls.origin(url)).slot() as slot:
            with self._lock:
                self.n_requests += 1
            try:
                return self._send(url, fetch, slot)
            finally:
                fetch.seconds += slot.seconds

    def _send(self, url: str, fetch: _Fetch, slot: RequestSlot) -> _Received:
        timeouts = (self._limits.connect_timeout_s, self._limits.read_timeout_s)
        with ConnectionGuard(self._limits.total_timeout_s, allow_private=self._allow_private) as guard:
            try:
                with self._session().get(
                    url, stream=True, allow_redirects=False, timeout=timeouts, headers=fetch.conditional_headers
                ) as response:
                    slot.record_status(response.status_code)
                    reply = self._receive(response, urls.origin(url), fetch)
            except PrivateAddressError as error:
                raise FetchError("private_address", "refused; see --allow-private") from error
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise (total_timeout_error() if guard.is_expired else transport_error(error)) from error
            if guard.is_expired:
                raise total_timeout_error()
        return reply

    def _receive(self, response: requests.Response, host: str, fetch: _Fetch) -> _Received:
        if location := self._session().get_redirect_target(response):
            return _Received(location=location)
        if response.status_code == 304 and fetch.conditional_headers:
            return _Received(status=304, validators=FetchRecord.from_headers(response.headers))
        if response.status_code != 200:
            raise self._status_error(response, host)
        max_bytes = fetch.max_bytes
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > max_bytes:
            raise FetchError("too_large", f"more than {max_bytes} bytes", status=200)
        content = bytearray()
        # read1 returns after each packet; read would wait for a full chunk.
        while packet := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            content += packet
            if len(content) > max_bytes:
                raise FetchError("too_large", f"more than {max_bytes} bytes", status=200)
        validators = FetchRecord.from_headers(response.headers)
        return _Received(bytes(content), response.headers.get("Content-Type", ""), validators=validators)

    def _status_error(self, response: requests.Response, host: str) -> FetchError:
        """Return the error of a status other than 200; a Retry-After header defers all requests to the host."""
        status = response.status_code
        is_transient = status in _TRANSIENT or status >= 500
        pause_s = retry_after_s(response.headers.get("Retry-After")) if is_transient else None
        if pause_s is not None and pause_s > self._limits.max_pause_s:
            return FetchError(f"http_{status}", "asks for too long a pause", status=status)
        if pause_s:
            logger.info("%s: Retry-After %.0f s", host, pause_s)
            self._throttle(host).defer(pause_s)
        return FetchError(f"http_{status}", status=status, is_transient=is_transient)

    def _check_robots(self, url: str) -> None:
        host = urls.origin(url)
        with self._lock:
            robots = self._robots.setdefault(host, _HostRobots(threading.Lock()))
        with robots.lock:
            if robots.rules is None:
                robots.rules = self._read_robots(host)
        if not robots.rules.can_fetch(url, AGENT):
            raise FetchError("robots_disallowed")
        if (robots.rules.crawl_delay(AGENT) or 0) > self._limits.max_pause_s:
            raise FetchError("robots_disallowed", "crawl-delay too long")

    def _read_robots(self, host: str) -> Protego:
        """Return the rules of a host: without the file everything is allowed; a transient error is raised.

        Source: RFC 9309, section 2.3.1.
        """
        try:
            _, reply = self._follow(_Fetch(f"{host}/robots.txt", _MAX_ROBOTS_BYTES, {}), obey_robots=False)
        except FetchError as error:
            if error.is_transient or error.status is None or error.status >= 500:
                raise
            return Protego.parse("")
        rules = Protego.parse(reply.content.decode("utf-8", errors="replace"))
        self._throttle(host).raise_min_delay(min(rules.crawl_delay(AGENT) or 0.0, self._limits.max_pause_s))
        return rules

    def _throttle(self, host: str) -> HostThrottle:
        with self._lock:
            return self._throttles.setdefault(host, HostThrottle(self._delay_s, self._stop, self._concurrency))

    def _session(self) -> requests.Session:
        if not hasattr(self._thread, "session"):
            self._thread.session = guarded_session(self._user_agent)
            with self._lock:
                self._sessions.append(self._thread.session)
        session: requests.Session = self._thread.session
        return session


@dataclass
class _HostRobots:
    """The rules of one host; the lock makes one thread read them while the others wait."""

    lock: threading.Lock
    rules: Protego | None = None
