"""A small HTTP server for tests: a table of paths, each answered by a function; counts what was asked."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Request(BaseHTTPRequestHandler):
    """One request; `nth` counts from 1 how often its path was asked for."""

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
    """Serves `answers` by path; what is not there is a 404."""

    daemon_threads = True

    def __init__(self, answers: dict[str, Handler], host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), Request)
        self.answers = answers
        self.count: Counter[str] = Counter()
        self.headers_seen: list[dict[str, str]] = []
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep silent about clients that are gone."""

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def answer_for(self, path: str) -> Handler:
        return self.answers.get(path, lambda request: request.reply(b"gone", 404))


@contextmanager
def serving(answers: dict[str, Handler], host: str = "127.0.0.1") -> Iterator[LocalServer]:
    """Run the server in a thread for the length of a `with` block."""
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
    """Answer with that content."""
    return lambda request: request.reply(content, **headers)


def status(code: int, **headers: str) -> Handler:
    """Answer with that status."""
    return lambda request: request.reply(b"no", code, **headers)


def in_sequence(*answers: Handler) -> Handler:
    """Answer the n-th request by the n-th answer; the last one stays."""
    return lambda request: answers[min(request.nth, len(answers)) - 1](request)
