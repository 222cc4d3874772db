"""Throughput of scrape.py relative to its limit, and its peak memory on short and long catalogues.

A shop with constant latency is scraped by scrape.py (with robots.txt, throttling, state, checks and tables), by a
thread pool with requests that only writes the bytes, and, with --scrapy-python, by Scrapy with AutoThrottle. The limit
is workers / latency requests per second. Memory is the peak resident set size of the process.

Out: benchmarks/results/scrape_speed.json and a table.
Command: python benchmarks/scrape_speed.py [--scrapy-python /somewhere/venv/bin/python]
Time: 12 minutes on two cores.
"""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from skincare.files import write_json
from skincare.paths import Layout
from skincare.runlog import environment
from skincare.tables import CATALOGUE, CatalogueRow

logger = logging.getLogger("scrape_speed")

_POOL = """
import sys, re, json
from concurrent.futures import ThreadPoolExecutor
from threading import local
from pathlib import Path
import requests
url, n, workers, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
here = local()
def get(path):
    if not hasattr(here, "session"): here.session = requests.Session()
    answer = here.session.get(url + path, timeout=30)
    answer.raise_for_status()
    return answer.content
def collect(i):
    for k, path in enumerate(json.loads(re.search(rb">(.*)<", get(f"/{i}.html"))[1])["image"]):
        (folder / f"{i}_{k}.jpg").write_bytes(get(path))
with ThreadPoolExecutor(workers) as pool:
    list(pool.map(collect, range(1, n + 1)))
"""
_SCRAPY = """
import sys, re, json
from pathlib import Path
import scrapy
from scrapy.crawler import CrawlerProcess
url, n, workers, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
class Shop(scrapy.Spider):
    name = "shop"
    async def start(self):
        for i in range(1, n + 1):
            yield scrapy.Request(f"{url}/{i}.html")
    def parse(self, response):
        for path in json.loads(re.search(rb">(.*)<", response.body)[1])["image"]:
            yield scrapy.Request(url + path, self.keep)
    def keep(self, response):
        (folder / response.url.rpartition("://")[2].replace("/", "_")).write_bytes(response.body)
process = CrawlerProcess({
    "CONCURRENT_REQUESTS": workers, "CONCURRENT_REQUESTS_PER_DOMAIN": workers, "DOWNLOAD_DELAY": 0,
    "AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_START_DELAY": 0, "AUTOTHROTTLE_TARGET_CONCURRENCY": workers,
    "ROBOTSTXT_OBEY": True, "LOG_LEVEL": "ERROR", "TELNETCONSOLE_ENABLED": False,
})
process.crawl(Shop)
process.start()
"""


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    workers: int = 10
    """Concurrent requests."""
    latency_s: float = 0.5
    """Latency of the shop in the throughput runs."""
    n_products: int = 500
    """Products in the throughput runs."""
    n_images: int = 2
    """Images per product."""
    memory_products: tuple[int, ...] = (1_000, 20_000)
    """Catalogue lengths in the memory runs, without latency."""
    scrapy_python: Path | None = None
    """Python interpreter with Scrapy installed."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "scrape_speed.json"
    """Output file."""


@dataclass(frozen=True)
class Run:
    """One run of one scraper."""

    way: str
    n_products: int
    n_images: int
    seconds: float
    requests_per_s: float
    peak_mb: float


def main() -> None:
    """Run every scraper and write the comparison."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    limit = config.workers / config.latency_s
    ways = ["ours", "requests and threads", *(["scrapy"] if config.scrapy_python else [])]
    with shop(config.latency_s, config.n_images) as url:
        speed = [measured(way, url, config, config.n_products) for way in ways]
    for one in speed:
        logger.info(
            "%-22s %7.1f requests/s %5.2f of the limit", one.way, one.requests_per_s, one.requests_per_s / limit
        )
    with shop(0.0, 1) as url:
        memory = [measured("ours", url, config, n) for n in config.memory_products]
    for one in memory:
        logger.info("%-22s %7d products: %4.0f MB, %.0f s", one.way, one.n_products, one.peak_mb, one.seconds)
    ratio = memory[-1].peak_mb / memory[0].peak_mb
    logger.info("peak memory, longest over shortest: %.2f", ratio)
    figures: dict[str, Any] = {
        "limit_requests_per_s": limit,
        "speed": [{**asdict(one), "share_of_limit": round(one.requests_per_s / limit, 3)} for one in speed],
        "memory": [asdict(one) for one in memory],
        "memory_ratio": round(ratio, 3),
        "workers": config.workers,
        "latency_s": config.latency_s,
    }
    write_json(config.out, {**figures, **environment()})


@contextmanager
def shop(latency_s: float, n_images: int) -> Iterator[str]:
    """Run the shop in a separate process."""
    command = [sys.executable, str(Path(__file__).with_name("latent_shop.py")), str(latency_s), str(n_images)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


def measured(way: str, url: str, config: Config, n_products: int) -> Run:
    """Run one scraper in a new folder; the time includes imports and the writing of tables."""
    with tempfile.TemporaryDirectory() as folder:
        command = _command(way, url, config, n_products, Path(folder))
        started = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        n_saved = sum(path.suffix == ".jpg" for path in Path(folder).rglob("*"))
    n_images = n_saved // n_products
    assert status == 0 and n_saved == n_images * n_products > 0, f"{way} ended with {status} and {n_saved} images"
    n_requests = n_products * (1 + n_images)
    peak_mb = usage.ru_maxrss / 1024
    return Run(way, n_products, n_images, round(seconds, 2), round(n_requests / seconds, 2), round(peak_mb, 1))


def _command(way: str, url: str, config: Config, n_products: int, folder: Path) -> list[str]:
    if way == "ours":
        rows = (CatalogueRow(f"Product {i}", f"https://shop.example/{i}.html", "Oil") for i in range(1, n_products + 1))
        CATALOGUE.write(Layout(folder).catalogue, rows)
        script = [sys.executable, str(REPOSITORY / "src" / "scrape.py"), "--root", str(folder), "--shop-url", url]
        return [*script, "--delay-s", "0", "--workers", str(config.workers)]
    python, code = (str(config.scrapy_python), _SCRAPY) if way == "scrapy" else (sys.executable, _POOL)
    return [python, "-c", code, url, str(n_products), str(config.workers), str(folder)]


if __name__ == "__main__":
    main()
