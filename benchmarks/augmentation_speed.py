"""Time per image of augmentation: at full resolution under a lock ("before"), and at the model's resolution ("after").

The images are drawn packs of 1,000 x 1,000 pixels, decoded beforehand. Augmentation is timed with one thread (CPU time,
independent of other load) and with one thread per core (wall time).

Out: benchmarks/results/augmentation_speed.json and a table.
Command: python benchmarks/augmentation_speed.py
Time: half a minute.
"""

import json
import logging
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

import torch
import tyro
from PIL import Image

from skincare.labels import skincare_labels
from skincare.modeling.loading import load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits
from skincare.paths import TINY_MODEL
from skincare.runlog import environment
from skincare.sample import drawing
from skincare.training.augmentation import augment
from skincare.training.recipes import Augmentation

logger = logging.getLogger("augmentation_speed")

_EPOCH_IMAGES: Final = 1_630  # training images of the reference experiment
_LOCK: Final = threading.Lock()


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    n_images: int = 8
    """Images per round."""
    n_rounds: int = 5
    """Number of rounds; the median is reported."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "augmentation_speed.json"
    """Output file."""


def measure(config: Config) -> dict[str, dict[str, float]]:
    """Return milliseconds per image for each augmentation, before and after, with one thread and with all."""
    # The reference experiment's limits: a square image has 308 x 308 pixels.
    encoder = PromptEncoder(load_processor(TINY_MODEL, PixelLimits()), skincare_labels())
    images = [_pack(seed) for seed in range(config.n_images)]
    n_threads = os.cpu_count() or 1
    found = {}
    for kind in get_args(Augmentation)[1:]:

        def before(i: int, kind: Augmentation = kind) -> object:
            with _LOCK:
                return augment(images[i], kind, 0, 0, str(i))

        def after(i: int, kind: Augmentation = kind) -> object:
            return augment(images[i], kind, 0, 0, str(i), encoder.enough_size)

        variants = {
            "before_ms": (before, 1),
            "after_ms": (after, 1),
            f"before_{n_threads}_threads_ms": (before, n_threads),
            f"after_{n_threads}_threads_ms": (after, n_threads),
        }
        found[kind] = {name: round(_milliseconds(work, n, config), 2) for name, (work, n) in variants.items()}
        found[kind]["epoch_seconds_before"] = round(found[kind]["before_ms"] * _EPOCH_IMAGES / 1000, 1)
        found[kind]["epoch_seconds_after"] = round(found[kind]["after_ms"] * _EPOCH_IMAGES / 1000, 1)
        logger.info("%-12s %s", kind, found[kind])
    return found


def _milliseconds(work: Callable[[int], object], n_threads: int, config: Config) -> float:
    seconds = []
    clock = time.process_time if n_threads == 1 else time.perf_counter
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(config.n_rounds + 1):
            started = clock()
            list(pool.map(work, range(config.n_images)))
            seconds.append(clock() - started)
    return 1000 * statistics.median(seconds[1:]) / config.n_images


def _pack(seed: int) -> Image.Image:
    packaging = drawing.random_packaging(random.Random(seed))
    return drawing.draw(packaging, drawing.View(), 1000, f"BRAND{seed}").image


def main() -> None:
    """Measure and write the JSON."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # parallelism is over images
    config = tyro.cli(Config, description=__doc__)
    result = {"environment": environment(), "cores": os.cpu_count(), "image_px": 1000, "augmentations": measure(config)}
    config.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
