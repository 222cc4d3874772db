"""Memory of the vision-features cache over a pass of 1,000 and of 20,000 images, and its speed for images that fit.

The features have the size of those of Qwen2-VL-2B with 128 visual tokens in bfloat16: 512 patches of 1,280 values,
1.3 MB an image. They are made up and not computed, so that only the cache is measured: once with the budget, and once
with an unlimited one, as it was before.

Out: benchmarks/results/vision_features_memory.json and a table.
Command: python benchmarks/vision_features_memory.py
Time: half a minute and 3 GB of memory.
"""

import json
import logging
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

import torch
import tyro

from skincare.modeling import device_memory
from skincare.modeling.feature_memory import FeatureMemory
from skincare.runlog import environment

logger = logging.getLogger("vision_features_memory")

_N_PATCHES, _WIDTH = 512, 1280
_GRID: Final = (1, 16, 32)
_CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    budget_mib: int = 512
    """Memory budget of the cache in MiB."""
    n_images: tuple[int, ...] = (1_000, 5_000, 20_000)
    """Images of a pass."""
    n_unlimited: int = 1_000
    """Images of the pass without a budget."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "vision_features_memory.json"
    """Output file."""


def measure(n_images: int, max_bytes: int) -> dict[str, Any]:
    """Return the memory and the time of a pass that adds every image, and the time of a second one over those kept."""
    _features(0)  # loads what torch needs
    device_memory.reset_peak(_CPU)
    before = device_memory.peak_bytes(_CPU)
    cache = FeatureMemory(max_bytes)
    started = time.perf_counter()
    for i in range(n_images):
        cache.put(str(i), (_GRID, _features(i)))
    added = time.perf_counter()
    kept = [str(i) for i in range(n_images) if str(i) in cache]
    for image in kept:
        cache.get(image)
    recalled = time.perf_counter()
    return {
        "n_images": n_images,
        "budget_mib": max_bytes / 2**20 if max_bytes < sys.maxsize else None,
        "n_kept": len(kept),
        "cache_mib": cache.n_bytes / 2**20,
        "peak_increase_mib": (device_memory.peak_bytes(_CPU) - before) / 2**20,
        "microseconds_per_added_image": 1e6 * (added - started) / n_images,
        "microseconds_per_recalled_image": 1e6 * (recalled - added) / len(kept),
    }


def _features(i: int) -> torch.Tensor:
    return torch.full((_N_PATCHES, _WIDTH), float(i), dtype=torch.bfloat16)


def _in_own_process(n_images: int, max_bytes: int) -> dict[str, Any]:
    """Return what `measure` returns, in a process whose memory holds nothing of other passes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, n_images, max_bytes).result()


def main() -> None:
    """Measure, write the results, log a table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(Config, description=__doc__)
    rows = [_in_own_process(n, config.budget_mib * 2**20) for n in config.n_images]
    rows.append(_in_own_process(config.n_unlimited, sys.maxsize))
    config.out.write_text(json.dumps({**environment(), "rows": rows}, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        budget = f"{row['budget_mib']:.0f} MiB" if row["budget_mib"] else "none"
        logger.info(
            "%6d images, budget %8s: %5d kept, peak + %5.0f MiB, %4.0f us to add, %4.1f us to recall an image",
            row["n_images"], budget, row["n_kept"], row["peak_increase_mib"],
            row["microseconds_per_added_image"], row["microseconds_per_recalled_image"],
        )  # fmt: skip


if __name__ == "__main__":
    main()
