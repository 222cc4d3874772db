"""Fetch errors with a machine-readable reason for the failures table."""

import socket

import requests
import urllib3

from skincare.collecting.fetch_record import FetchRecord


class FetchError(Exception):
    """A failed fetch; `reason` and `detail` are the same on every machine and run."""

    def __init__(self, reason: str, detail: str = "", *, status: int | None = None, is_transient: bool = False) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.is_transient = is_transient
        self.fetch_record = FetchRecord(status, 1)


def transport_error(error: Exception) -> FetchError:
    """Return the error below HTTP (timeout, TLS, connection) as a FetchError without ports or object addresses."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return FetchError("timeout", is_transient=True)
    if isinstance(error, requests.exceptions.SSLError):
        return FetchError("tls_error")
    if isinstance(error, ValueError):
        # Our URLs are canonical, but requests parses the redirect target even with allow_redirects=False.
        return FetchError("bad_redirect", "no usable web address")
    return FetchError("connection_error", _root_cause(error), is_transient=True)


def _root_cause(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, socket.gaierror):
        return "host not found"
    # Whether it appears as a reset, an early end or a malformed line depends on timing.
    return "refused" if isinstance(error, ConnectionRefusedError) else "broken off"


def total_timeout_error() -> FetchError:
    """Return the error of a response that exceeded the total time."""
    return FetchError("too_slow", "the answer did not end in time")
