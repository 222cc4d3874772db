"""What can go wrong on the way to an address, as reasons for a table."""

import socket

import requests
import urllib3

from skincare.collecting.fetch_record import FetchRecord


class FetchError(Exception):
    """An address that gave nothing usable; `detail` says the same on every machine and run."""

    def __init__(self, reason: str, detail: str = "", *, status: int | None = None, is_transient: bool = False) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.is_transient = is_transient
        self.fetch_record = FetchRecord(status, 1)


def transport_error(error: Exception) -> FetchError:
    """Name what went wrong below HTTP, in words without addresses of objects or ports."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return FetchError("timeout", is_transient=True)
    if isinstance(error, requests.exceptions.SSLError):
        return FetchError("tls_error")
    if isinstance(error, ValueError):
        # Our own addresses are canonical; requests looks at the next one even when told not to follow it.
        return FetchError("bad_redirect", "no usable web address")
    return FetchError("connection_error", _root_cause(error), is_transient=True)


def _root_cause(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, socket.gaierror):
        return "host not found"
    # Whether the rest shows as a reset, an early end or a bad line can depend on the moment.
    return "refused" if isinstance(error, ConnectionRefusedError) else "broken off"


def total_timeout_error() -> FetchError:
    """Return the error of an answer whose time is over."""
    return FetchError("too_slow", "the answer did not end in time")
