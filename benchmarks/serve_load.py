"""Load test of the service on the loopback interface: capacity, then ten times the capacity, then recovery.

capacity  two clients per worker; each sends its next request when it has its answer
overload  requests at ten times that rate, whether or not earlier ones were answered
recovery  seconds after the overload until an image is answered

Every request carries one rendered pack. `lost` are requests without a response. Memory is that of the service with its
workers, after the capacity phase, at its highest during the overload, and after the recovery.

Out: benchmarks/results/serve_load.json.
Command: python benchmarks/serve_load.py [--seconds 15]
Time: two minutes.
"""

import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import requests
import tyro

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from skincare.files import write_json
from skincare.paths import TINY_MODEL
from skincare.runlog import environment
from skincare.sample.products import sample_products
from skincare.sample.rendering import image_bytes

logger = logging.getLogger("serve_load")

SETUPS: Final = {
    "reader, 2 workers": ["--by", "reader", "--workers", "2"],
    "embedded model, 1 worker": ["--by", "model", "--model", str(TINY_MODEL), "--decoder", "rank", "--workers", "1"],
}
OVERLOAD: Final = 10
# Requests in flight at most: more threads would measure the client.
MAX_CLIENTS: Final = 300
_WARM_UP: Final = 40


@dataclass(frozen=True)
class Config:
    """Command line of the benchmark."""

    seconds: float = 15.0
    """Length of each of the two phases."""
    clients: int = 4
    """Clients of the capacity phase."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "serve_load.json"
    """Output file."""


@dataclass
class Phase:
    """The responses of one phase: seconds by status code; None stands for no response."""

    seconds: float = 0.0
    latencies: dict[int | None, list[float]] = field(default_factory=dict)
    n_without_retry_after: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, url: str, content: bytes) -> int | None:
        """Send one image and record the response."""
        started = time.perf_counter()
        try:
            reply = requests.post(f"{url}/predict", content, headers={"Content-Type": "image/jpeg"}, timeout=120)
            code: int | None = reply.status_code
            is_incomplete = code == 503 and "Retry-After" not in reply.headers
        except requests.RequestException:
            code, is_incomplete = None, False
        with self.lock:
            self.latencies.setdefault(code, []).append(time.perf_counter() - started)
            self.n_without_retry_after += is_incomplete
        return code

    def summary(self) -> dict[str, Any]:
        """Return counts, rates and percentiles."""
        counts = {str(code or "lost"): len(values) for code, values in self.latencies.items()}
        answered, rejected = self.latencies.get(200, []), self.latencies.get(503, [])
        n_sent = sum(counts.values())
        return {
            "sent": n_sent, "lost": counts.pop("lost", 0), "codes": dict(sorted(counts.items())),
            "503_without_retry_after": self.n_without_retry_after, "sent_per_s": round(n_sent / self.seconds, 2),
            "answered_per_s": round(len(answered) / self.seconds, 2), "answered_s": _percentiles(answered),
            "rejected_s": _percentiles(rejected),
        }  # fmt: skip


def _percentiles(values: list[float]) -> dict[str, float]:
    names = {"p50": 50, "p95": 95, "p99": 99}
    return {name: round(float(np.percentile(values, at)), 3) for name, at in names.items()} if values else {}


def photos() -> list[bytes]:
    """Return rendered packs."""
    products = sample_products(0)[:40]
    known = {one.product_id: one for one in products}
    found = [(one, image) for one in products for image in one.images[:1]]
    contents = []
    for product, image in found:
        try:
            contents.append(image_bytes(product, image, known))
        except KeyError:
            continue  # a copy of an image of a product that is not among the first
    return [one for one in contents if one.startswith(b"\xff\xd8")][:20]


@contextmanager
def service(options: list[str]) -> Iterator[tuple[str, psutil.Process, float]]:
    """Start the service on a free port; yield its address, its process and the seconds until it was ready."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, str(REPOSITORY / "src" / "serve.py"), "--root", root, "--port", "0", *options]
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables)
        try:
            assert process.stderr
            lines = iter(process.stderr.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
            threading.Thread(target=process.stderr.read, daemon=True).start()
            while requests.get(f"{url}/readyz", timeout=10).status_code != 200:
                time.sleep(0.05)
            yield url, psutil.Process(process.pid), time.perf_counter() - started
        finally:
            process.terminate()
            process.wait(60)


def memory_mib(process: psutil.Process) -> float:
    """Return the private memory of a process and its children."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def capacity(url: str, contents: list[bytes], config: Config) -> Phase:
    """Let a few clients send one request after another."""
    phase = Phase()
    end = time.perf_counter() + config.seconds

    def client(first: int) -> None:
        i = first
        while time.perf_counter() < end:
            phase.send(url, contents[i % len(contents)])
            i += 1

    started = time.perf_counter()
    with ThreadPoolExecutor(config.clients) as pool:
        list(pool.map(client, range(config.clients)))
    phase.seconds = time.perf_counter() - started
    return phase


def overload(
    url: str, contents: list[bytes], rate: float, seconds: float, process: psutil.Process
) -> tuple[Phase, float]:
    """Send at a fixed rate; return the responses and the highest memory."""
    phase, highest = Phase(), 0.0
    started = time.perf_counter()
    n_sent, next_look = 0, 0.0
    with ThreadPoolExecutor(MAX_CLIENTS) as pool:
        while (now := time.perf_counter() - started) < seconds:
            while n_sent < now * rate:
                pool.submit(phase.send, url, contents[n_sent % len(contents)])
                n_sent += 1
            if now >= next_look:
                highest, next_look = max(highest, memory_mib(process)), now + 1
            time.sleep(0.002)
    phase.seconds = time.perf_counter() - started
    return phase, highest


def recovery_s(url: str, content: bytes) -> float:
    """Return the seconds until an image is answered."""
    started = time.perf_counter()
    phase = Phase()
    while phase.send(url, content) != 200:
        time.sleep(0.1)
    return time.perf_counter() - started


def measure(options: list[str], contents: list[bytes], config: Config) -> dict[str, Any]:
    """Return the figures of one setup."""
    with service(options) as (url, process, ready_s):
        # Full batches once: their memory is what a worker keeps.
        with ThreadPoolExecutor(_WARM_UP) as pool:
            list(pool.map(partial(Phase().send, url), (contents * _WARM_UP)[:_WARM_UP]))
        normal = capacity(url, contents, config)
        before = memory_mib(process)
        rate = OVERLOAD * len(normal.latencies.get(200, [])) / normal.seconds
        crowded, highest = overload(url, contents, rate, config.seconds, process)
        recovered = recovery_s(url, contents[0])
        after = memory_mib(process)
    return {
        "ready_s": round(ready_s, 2), "capacity": normal.summary(), "overload": crowded.summary(),
        "recovery_s": round(recovered, 2), "memory_mib": {
            "after_capacity": round(before), "highest": round(highest), "after_recovery": round(after)
        },
    }  # fmt: skip


def run(config: Config) -> None:
    """Measure every setup and write the results."""
    contents = photos()
    rows = {name: measure(options, contents, config) for name, options in SETUPS.items()}
    for name, row in rows.items():
        logger.info("%s: %s", name, row)
    size_kb = round(float(np.mean([len(one) for one in contents])) / 1e3)
    write_json(config.out, {"overload_factor": OVERLOAD, "image_kb": size_kb, "setups": rows, **environment()})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(tyro.cli(Config, description=__doc__))
