"""HTTP connections to untrusted servers: no private addresses, no responses without an end.

requests limits the time to connect and the time between packets. `with ConnectionGuard(...)` adds a limit on the total
time and refuses private addresses. A host that resolves to one is refused before a connection, so that open and closed
ports of a private network look alike. The address of the connected socket is checked before anything is sent, so
neither a redirect nor DNS rebinding can reach a private network. Proxies, cookies and netrc are disabled: behind a
proxy the address could not be checked.
"""

import contextlib
import ipaddress
import socket
import threading
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_thread_state = threading.local()

# IPv6 networks whose last 32 bits are an IPv4 address: IPv4-mapped, NAT64, IPv4-compatible.
_WRAPPING: Final = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "::/96")))
# NAT64 of a local network. Source: RFC 8215.
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")


class PrivateAddressError(Exception):
    """The host's address is private, link-local or otherwise not on the public internet."""


class ConnectionGuard:
    """Limits the requests of the current thread while the block is active."""

    def __init__(self, total_s: float, *, allow_private: bool) -> None:
        self.is_expired = False
        self._allow_private = allow_private
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(total_s, self._expire)

    def __enter__(self) -> Self:
        self._timer.start()
        _thread_state.guard = self
        return self

    def __exit__(self, _type: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._timer.cancel()
        _thread_state.guard = None

    def check_host(self, host: str, port: int) -> None:
        """Raise PrivateAddressError for a host with an address that is not public."""
        if self._allow_private:
            return
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return  # connecting reports it
        if not all(is_public(str(address[0])) for *_, address in found):
            raise PrivateAddressError(host)

    def check(self, connected: socket.socket) -> None:
        """Close a connection to an address that is not public; raises PrivateAddressError."""
        address = connected.getpeername()[0]
        if not self._allow_private and not is_public(address):
            connected.close()
            raise PrivateAddressError(address)

    def watch(self, connected: socket.socket) -> None:
        """Register the connection to close when the time is over."""
        self._socket = connected
        if self.is_expired:
            self._expire()

    def _expire(self) -> None:
        self.is_expired = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def is_public(address: str) -> bool:
    """Return whether an IP address is on the public internet; an IPv4 address inside an IPv6 one is unwrapped."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _LOCAL_NAT64:
            return False
        if any(ip in wrapping for wrapping in _WRAPPING):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip.sixtofour:
            ip = ip.sixtofour
    return ip.is_global and not ip.is_multicast


def guarded_session(user_agent: str) -> requests.Session:
    """Return a session whose requests obey the ConnectionGuard of their thread."""
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update({"User-Agent": user_agent, "Accept-Encoding": "gzip, deflate"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, _GuardedAdapter())
    return session


class _Guarded:
    """Passes each new socket, and each socket with a response, to the thread's ConnectionGuard."""

    def _new_conn(self) -> socket.socket:
        guard: ConnectionGuard | None = getattr(_thread_state, "guard", None)
        if guard is not None:
            guard.check_host(self.host, self.port)  # type: ignore[attr-defined]
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        if guard is not None:
            guard.check(connected)
        return connected

    def getresponse(self) -> Any:
        if (guard := getattr(_thread_state, "guard", None)) is not None:
            guard.watch(self.sock)  # type: ignore[attr-defined]
        return super().getresponse()  # type: ignore[misc]


class _GuardedHTTP(_Guarded, HTTPConnection):
    pass


class _GuardedHTTPS(_Guarded, HTTPSConnection):
    pass


class _GuardedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _GuardedHTTP


class _GuardedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPS


class _GuardedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _GuardedHTTPPool, "https": _GuardedHTTPSPool}
