"""uvicorn with a time limit for headers, SIGHUP for a reload, and an end that answers what was accepted.

uvicorn limits the idle time of a connection only after its first response; here a connection that sends no complete
headers in time is closed too, so that idle connections cost nothing for long.
"""

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from skincare.serving.limits import Limits
from skincare.serving.service import Service

logger = logging.getLogger(__name__)

_BACKLOG: Final = 2048
_MAX_HEADER_BYTES: Final = 32_768


class Server(uvicorn.Server):
    """A uvicorn server whose signals end it (SIGTERM, SIGINT) or reload the model (SIGHUP)."""

    def __init__(
        self, app: FastAPI, host: str, port: int, limits: Limits, *,
        on_reload: Callable[[], Coroutine[Any, Any, object]], on_drain: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(
            uvicorn.Config(
                app, host, port, http=_protocol(limits.header_timeout_s), ws="none", lifespan="off", log_config=None,
                log_level="warning", access_log=False, server_header=False, date_header=False, proxy_headers=False,
                backlog=_BACKLOG, timeout_keep_alive=max(1, int(limits.header_timeout_s)),
                timeout_graceful_shutdown=int(limits.answer_timeout_s + limits.body_timeout_s) + 1,
                h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            )
        )  # fmt: skip
        self._on_reload = on_reload
        self._on_drain = on_drain
        self._reloads: set[asyncio.Task[object]] = set()

    @property
    def bound_port(self) -> int:
        """Return the port on which the server listens, once it has started."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and log the address."""
        await super().startup(sockets)
        if self.started:
            logger.info("Serving on http://%s:%d", self.config.host, self.bound_port)

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop accepting and answer what was accepted."""
        self._on_drain()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs; outside the main thread there are none."""
        loop = asyncio.get_running_loop()
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.handle_exit, number, None)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        except (ValueError, RuntimeError):
            # Not the main thread, as in tests.
            yield
            return
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._on_reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


class TimedProtocol(H11Protocol):
    """uvicorn's protocol with a time limit for the headers of each request."""

    header_timeout_s = 10.0
    header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; a complete set of headers ends the wait."""
        previous = self.scope
        super().data_received(data)
        if self.scope is not previous:
            self._cancel_timer()
        elif self._is_between_requests() and self.header_timer is None:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait."""
        self._cancel_timer()
        super().connection_lost(exc)

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        self.header_timer = self.loop.call_later(self.header_timeout_s, self._close_silent)

    def _cancel_timer(self) -> None:
        if self.header_timer is not None:
            self.header_timer.cancel()
            self.header_timer = None

    def _close_silent(self) -> None:
        self.header_timer = None
        if self._is_between_requests() and not self.transport.is_closing():
            self.transport.close()


def _protocol(timeout_s: float) -> type[TimedProtocol]:
    return type("Protocol", (TimedProtocol,), {"header_timeout_s": timeout_s})


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(server: Server, service: Service) -> None:
    """Load the predictor while the server listens already, and serve until a signal; raises WorkerLoadError."""
    loading = asyncio.create_task(service.start())
    loading.add_done_callback(lambda task: _end_on_failure(task, server))
    try:
        await server.serve()
    finally:
        loading.cancel()
        (failure,) = await asyncio.gather(loading, return_exceptions=True)
        await service.stop()
    if isinstance(failure, Exception):
        raise failure


def _end_on_failure(task: asyncio.Task[None], server: Server) -> None:
    if not task.cancelled() and task.exception() is not None:
        server.should_exit = True
