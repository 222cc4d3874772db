"""LitServe and FastAPI with uvicorn as the HTTP side of the service: the figures behind the choice.

Both run a predictor that returns the size of the upload, with one worker process. LitServe must be installed in the
Python that runs this, which is why it is no part of the requirements: `pip install litserve`.

ready_s        from the start of the process to the first answer
cpu_ms         CPU time of all processes per request of 100 kB, over 300 requests of one client
p50_ms         time of such a request
memory_mib     private memory of all processes
killed_worker  what a request gets whose worker is killed while it computes, and whether the next one is answered

Out: benchmarks/results/serve_frameworks.json.
Command: python benchmarks/serve_frameworks.py
Time: one minute.
"""

import base64
import importlib.metadata
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import requests

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from skincare.files import write_json
from skincare.runlog import environment

logger = logging.getLogger("serve_frameworks")

RESULTS: Final = REPOSITORY / "benchmarks" / "results" / "serve_frameworks.json"
N_REQUESTS: Final = 300
BODY: Final = b"x" * 100_000
SLOW_S: Final = 3

LITSERVE: Final = """
import base64, sys, time
import litserve

class Api(litserve.LitAPI):
    def setup(self, device): pass
    def decode_request(self, request): return base64.b64decode(request["images"][0]["data"])
    def predict(self, content):
        if content == b"slow": time.sleep(3)
        return len(content)
    def encode_response(self, output): return {"n": output}

if __name__ == "__main__":
    litserve.LitServer(Api(), accelerator="cpu", track_requests=False).run(
        port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="error")
"""
OURS: Final = """
import sys, time, asyncio
sys.path[:0] = [{source!r}, {repository!r}]
from benchmarks.serve_frameworks import EchoPredictor
from skincare.serving import app, batcher, http_server, limits, metrics, service

async def main():
    measured, bounds = metrics.Metrics(), limits.Limits()
    queue = batcher.Batcher(EchoPredictor, bounds, measured, max_batch=1)
    parts = service.Service(queue, bounds, measured)
    server = http_server.Server(app.create_app(parts), "127.0.0.1", int(sys.argv[1]), bounds,
                                on_reload=queue.reload, on_drain=parts.start_draining)
    await http_server.serve(server, parts)

if __name__ == "__main__":
    asyncio.run(main())
"""


class EchoPredictor:
    """Returns the size of the upload."""

    name = "echo"

    def predict(self, jobs: Any) -> Any:
        """Return one answer per job."""
        from skincare.serving.answers import ImageAnswer

        if jobs[0].content == b"slow":
            time.sleep(SLOW_S)
        return [ImageAnswer(file="", outcome="answered", status="read", answer=str(len(one.content))) for one in jobs]


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def post(url: str, content: bytes, timeout_s: float = 60) -> str:
    """Return the status code of a request as text; `no answer` after the timeout or a broken connection."""
    try:
        body = {"images": [{"data": base64.b64encode(content).decode()}]}
        reply = requests.post(f"{url}/predict", json=body, timeout=timeout_s)
    except requests.RequestException:
        return "no answer"
    return str(reply.status_code)


def processes(process: psutil.Process) -> list[psutil.Process]:
    """Return a process with all its children."""
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and its children."""
    return sum(sum(one.cpu_times()[:2]) for one in processes(process))


def killed_worker(url: str, process: psutil.Process) -> dict[str, str]:
    """Kill the process that computes a slow request and return what that request and the next one get."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(post(url, b"slow", 20)))
    children = process.children(recursive=True)
    thread.start()
    time.sleep(1)
    # The worker is the child with the most memory: both frameworks also start helpers.
    worker = max(children, key=lambda one: one.memory_full_info().uss)
    os.kill(worker.pid, signal.SIGKILL)
    thread.join()
    return {"its_request": found[0], "next_request": post(url, BODY, 20)}


def measure(program: str) -> dict[str, Any]:
    """Return the figures of one program."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "program.py"
        script.write_text(program, encoding="utf-8")
        started = time.perf_counter()
        child = subprocess.Popen([sys.executable, str(script), str(port)], stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            while post(url, BODY) != "200":
                time.sleep(0.02)
            ready_s = time.perf_counter() - started
            process = psutil.Process(child.pid)
            before, latencies = cpu_s(process), []
            for _ in range(N_REQUESTS):
                sent = time.perf_counter()
                post(url, BODY)
                latencies.append(time.perf_counter() - sent)
            used = cpu_s(process) - before
            memory = sum(one.memory_full_info().uss for one in processes(process)) / 2**20
            return {
                "ready_s": round(ready_s, 2), "cpu_ms": round(1e3 * used / N_REQUESTS, 2),
                "p50_ms": round(1e3 * float(np.median(latencies)), 2), "memory_mib": round(memory),
                "processes": len(processes(process)), "killed_worker": killed_worker(url, process),
            }  # fmt: skip
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


def main() -> None:
    """Measure both and write the results."""
    if importlib.util.find_spec("litserve") is None:
        sys.exit("LitServe is not installed: pip install litserve")
    programs = {
        "litserve": LITSERVE,
        "fastapi": OURS.format(source=str(REPOSITORY / "src"), repository=str(REPOSITORY)),
    }
    rows = {name: measure(program) for name, program in programs.items()}
    versions = {name: importlib.metadata.version(name) for name in ("litserve", "fastapi", "uvicorn")}
    for name, row in rows.items():
        logger.info("%s: %s", name, row)
    write_json(RESULTS, {"frameworks": rows, **environment(), "versions": versions})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
