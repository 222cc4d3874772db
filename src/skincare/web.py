"""One way to the web for all threads: an address in, the bytes of its answer or a FetchError with a reason out.

A request waits at its host's gate, obeys robots.txt, follows a few redirects, each checked anew, and is bounded in
size and time. What may pass is tried again (tenacity): 408, 425, 429, 5xx and broken connections, never 404 or 410.
"""

import logging
import socket
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urljoin

import requests
import urllib3
from protego import Protego
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from skincare import urls
from skincare.gates import Gate, pause, retry_after_s
from skincare.transport import Guard, PrivateAddressError, guarded_session

logger = logging.getLogger(__name__)

AGENT: Final = "skincare-collector"
_TRANSIENT: Final = {408, 425, 429}
# What RFC 9309 asks a crawler to read at least.
_MAX_ROBOTS_BYTES: Final = 512_000
_CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True)
class Limits:
    """How long and how often to try. The issue's back-off: five tries, exponential from 1 to 10 seconds."""

    attempts: int = 5
    backoff_min_s: float = 1.0
    backoff_max_s: float = 10.0
    connect_timeout_s: float = 10.0
    # Between two packets, and for the whole answer.
    read_timeout_s: float = 30.0
    total_timeout_s: float = 120.0
    max_redirects: int = 5
    # A host that asks for a longer pause does not want to be read today.
    max_pause_s: float = 300.0


@dataclass(frozen=True)
class Answer:
    """What an address gave, and where it was found after redirects."""

    url: str
    content: bytes
    content_type: str
    n_attempts: int


class FetchError(Exception):
    """An address that gave nothing usable; `detail` says the same on every machine and run."""

    def __init__(self, reason: str, detail: str = "", *, status: int | None = None, is_transient: bool = False) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.is_transient = is_transient
        self.n_attempts = 1


@dataclass(frozen=True)
class _Reply:
    content: bytes
    content_type: str
    location: str | None


class Web:
    """Fetches for any number of threads: sessions per thread, gates and robots.txt per host."""

    def __init__(
        self, contact: str = "", *, delay_s: float = 0.0, allow_private: bool = False, limits: Limits | None = None
    ) -> None:
        self.n_requests = 0
        self._user_agent = f"{AGENT}/1.0 (product photo research; {contact or 'no contact given'})"
        self._delay_s = delay_s
        self._allow_private = allow_private
        self._limits = limits or Limits()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._gates: dict[str, Gate] = {}
        self._robots: dict[str, _Robots] = {}
        self._thread = threading.local()
        self._sessions: list[requests.Session] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.stop()
        for session in self._sessions:
            session.close()

    def stop(self) -> None:
        """End all waiting, in every thread, with StoppedError."""
        self._stop.set()

    def get(self, url: str, max_bytes: int) -> Answer:
        """Return the answer of a canonical address.

        Raises FetchError with a reason (http_404, timeout, too_slow, too_large, connection_error, private_address,
        robots_disallowed, too_many_redirects, bad_redirect ...) or StoppedError.
        """
        limits = self._limits
        retrying = Retrying(
            stop=stop_after_attempt(limits.attempts),
            wait=wait_exponential(limits.backoff_min_s, min=limits.backoff_min_s, max=limits.backoff_max_s),
            retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.is_transient),
            sleep=lambda seconds: pause(seconds, self._stop),
            reraise=True,
        )
        try:
            final_url, reply = retrying(self._follow, url, max_bytes)
        except FetchError as error:
            error.n_attempts = retrying.statistics["attempt_number"]
            raise
        return Answer(final_url, reply.content, reply.content_type, retrying.statistics["attempt_number"])

    def _follow(self, url: str, max_bytes: int, *, obey_robots: bool = True) -> tuple[str, _Reply]:
        for _ in range(self._limits.max_redirects + 1):
            if obey_robots:
                self._check_robots(url)
            reply = self._request(url, max_bytes)
            if reply.location is None:
                return url, reply
            try:
                url = urls.canonical_url(urljoin(url, reply.location), keep_query=True)
            except ValueError as error:
                raise FetchError("bad_redirect", "no usable web address") from error
        raise FetchError("too_many_redirects", f"more than {self._limits.max_redirects}")

    def _request(self, url: str, max_bytes: int) -> _Reply:
        host = urls.origin(url)
        self._gate(host).wait()
        with self._lock:
            self.n_requests += 1
        timeouts = (self._limits.connect_timeout_s, self._limits.read_timeout_s)
        with Guard(self._limits.total_timeout_s, allow_private=self._allow_private) as guard:
            try:
                with self._session().get(url, stream=True, allow_redirects=False, timeout=timeouts) as response:
                    reply = self._receive(response, host, max_bytes)
            except PrivateAddressError as error:
                raise FetchError("private_address", "refused; see --allow-private") from error
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise _failure(error, guard) from error
            if guard.is_expired:
                raise _too_slow()
        return reply

    def _receive(self, response: requests.Response, host: str, max_bytes: int) -> _Reply:
        if location := self._session().get_redirect_target(response):
            return _Reply(b"", "", location)
        if response.status_code != 200:
            raise self._refusal(response, host)
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > max_bytes:
            raise FetchError("too_large", f"more than {max_bytes} bytes", status=200)
        content = bytearray()
        # read1 returns with each packet: read would wait for a full chunk.
        while packet := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            content += packet
            if len(content) > max_bytes:
                raise FetchError("too_large", f"more than {max_bytes} bytes", status=200)
        return _Reply(bytes(content), response.headers.get("Content-Type", ""), None)

    def _refusal(self, response: requests.Response, host: str) -> FetchError:
        """Close the host's gate for as long as it asks, and return the error that says what it answered."""
        status = response.status_code
        is_transient = status in _TRANSIENT or status >= 500
        pause_s = retry_after_s(response.headers.get("Retry-After")) if is_transient else None
        if pause_s is not None and pause_s > self._limits.max_pause_s:
            return FetchError(f"http_{status}", "asks for too long a pause", status=status)
        if pause_s:
            logger.info("%s asks for a pause of %.0f s", host, pause_s)
            self._gate(host).park(pause_s)
        return FetchError(f"http_{status}", status=status, is_transient=is_transient)

    def _check_robots(self, url: str) -> None:
        host = urls.origin(url)
        with self._lock:
            robots = self._robots.setdefault(host, _Robots(threading.Lock()))
        with robots.lock:
            if robots.rules is None:
                robots.rules = self._read_robots(host)
        if not robots.rules.can_fetch(url, AGENT):
            raise FetchError("robots_disallowed")
        if (robots.rules.crawl_delay(AGENT) or 0) > self._limits.max_pause_s:
            raise FetchError("robots_disallowed", "crawl-delay too long")

    def _read_robots(self, host: str) -> Protego:
        """Return a host's rules; a host without the file allows everything, one that fails to answer nothing."""
        try:
            _, reply = self._follow(f"{host}/robots.txt", _MAX_ROBOTS_BYTES, obey_robots=False)
        except FetchError as error:
            if error.is_transient or error.status is None or error.status >= 500:
                raise
            return Protego.parse("")
        rules = Protego.parse(reply.content.decode("utf-8", errors="replace"))
        self._gate(host).slow_down(min(rules.crawl_delay(AGENT) or 0.0, self._limits.max_pause_s))
        return rules

    def _gate(self, host: str) -> Gate:
        with self._lock:
            return self._gates.setdefault(host, Gate(self._delay_s, self._stop))

    def _session(self) -> requests.Session:
        if not hasattr(self._thread, "session"):
            self._thread.session = guarded_session(self._user_agent)
            with self._lock:
                self._sessions.append(self._thread.session)
        session: requests.Session = self._thread.session
        return session


@dataclass
class _Robots:
    """The rules of one host; the lock lets one thread read them while the others wait."""

    lock: threading.Lock
    rules: Protego | None = None


def _failure(error: Exception, guard: Guard) -> FetchError:
    """Name what went wrong below HTTP, in words without addresses of objects or ports."""
    if guard.is_expired:
        return _too_slow()
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return FetchError("timeout", is_transient=True)
    if isinstance(error, requests.exceptions.SSLError):
        return FetchError("tls_error")
    if isinstance(error, ValueError):
        # Our own addresses are canonical; requests looks at the next one even when told not to follow it.
        return FetchError("bad_redirect", "no usable web address")
    return FetchError("connection_error", _broken_by(error), is_transient=True)


def _broken_by(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, socket.gaierror):
        return "host not found"
    # Whether the rest shows as a reset, an early end or a bad line can depend on the moment.
    return "refused" if isinstance(error, ConnectionRefusedError) else "broken off"


def _too_slow() -> FetchError:
    return FetchError("too_slow", "the answer did not end in time")
