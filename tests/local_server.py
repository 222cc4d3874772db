"""A small HTTP server for tests: one handler function per path; it counts the requests of each path."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Request(BaseHTTPRequestHandler):
    """One request; `nth` is the number of requests of its path so far, from 1."""

    protocol_version = "HTTP/1.1"
    server: "LocalServer"

    @property
    def nth(self) -> int:
        return self.server.count[self.path]

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.count[self.path] += 1
            self.server.headers_seen.append(dict(self.headers))
        try:
            self.server.answer_for(self.path)(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def reply(self, content: bytes, status: int = 200, content_type: str = "text/html", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


Handler = Callable[[Request], None]


class LocalServer(ThreadingHTTPServer):
    """Serves `answers` by path; any other path is a 404."""

    daemon_threads = True

    def __init__(self, answers: dict[str, Handler], host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), Request)
        self.answers = answers
        self.count: Counter[str] = Counter()
        self.headers_seen: list[dict[str, str]] = []
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that have disconnected."""

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def answer_for(self, path: str) -> Handler:
        return self.answers.get(path, lambda request: request.reply(b"gone", 404))


@contextmanager
def serving(answers: dict[str, Handler], host: str = "127.0.0.1") -> Iterator[LocalServer]:
    """Run the server in a thread during a `with` block."""
    server = LocalServer(answers, host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ok(content: bytes = b"fine", **headers: str) -> Handler:
    """Return a handler that sends this content."""
    return lambda request: request.reply(content, **headers)


def status(code: int, **headers: str) -> Handler:
    """Return a handler that sends this status."""
    return lambda request: request.reply(b"no", code, **headers)


def in_sequence(*answers: Handler) -> Handler:
    """Return a handler that uses the n-th handler for the n-th request, and the last one from then on."""
    return lambda request: answers[min(request.nth, len(answers)) - 1](request)
