"""A service for tests: the whole server in a thread, with a predictor whose behaviour the image's name selects."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from skincare.serving import app, batcher, http_server, metrics, service
from skincare.serving.limits import Limits
from tests.fake_predictor import FakeLoader


@dataclass
class Running:
    """A running service; `call` runs a coroutine function in its event loop."""

    url: str
    port: int
    service: service.Service
    loop: asyncio.AbstractEventLoop
    server: http_server.Server

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)


@dataclass
class _Holder:
    running: Running | None = None
    failure: BaseException | None = None
    ready: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(load=None, limits=None, *, n_workers=1, max_batch=4, **parts) -> Iterator[Running]:
    """Run a service on a free port of the loopback interface for the length of a `with` block."""
    holder = _Holder()

    async def main():
        measured = metrics.Metrics()
        bounds = limits or Limits()
        queue = batcher.Batcher(load or FakeLoader(), bounds, measured, n_workers=n_workers, max_batch=max_batch)
        made = service.Service(queue, bounds, measured, **parts)
        server = http_server.Server(
            app.create_app(made), "127.0.0.1", 0, bounds, on_reload=queue.reload, on_drain=made.start_draining
        )
        serve = asyncio.create_task(http_server.serve(server, made))
        while not serve.done() and not (server.started and queue.n_live):
            await asyncio.sleep(0.01)
        if not serve.done():
            address = f"http://127.0.0.1:{server.bound_port}"
            holder.running = Running(address, server.bound_port, made, asyncio.get_running_loop(), server)
        holder.ready.set()
        await serve

    def target():
        try:
            asyncio.run(main())
        except BaseException as error:
            holder.failure = error
            holder.ready.set()

    thread = threading.Thread(target=target)
    thread.start()
    assert holder.ready.wait(60)
    if holder.running is None:
        thread.join()
        raise holder.failure or AssertionError("the service did not start")
    try:
        yield holder.running
    finally:
        holder.running.server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
