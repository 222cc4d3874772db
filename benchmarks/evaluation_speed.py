"""Speed of the four decoders at the true shape of Qwen2-VL-2B, beside the reference's way of asking.

The weights are random, the pictures drawn and the same for all. The reference asks one picture at a time by
`model.generate` with at most 30 new tokens. Random weights never say the end token, so it pays for all 30; a trained
model ends a name after about 4, which is measured too (`reference_4_tokens`).

Out: benchmarks/results/evaluation_speed_<device>.json and a table.
Command: python benchmarks/evaluation_speed.py
Time: 6 minutes on two CPU cores; seconds on a GPU.
"""

import json
import logging
import os
import platform
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import tyro

from full_size import REPOSITORY, full_size_model
from skincare.batches import PromptEncoder
from skincare.decoders import NAMES, make_decoder
from skincare.model import PixelLimits, default_device, load_processor
from skincare.paths import TINY_MODEL
from skincare.recogniser import Recogniser
from skincare.runlog import environment
from skincare.sample import drawing

logger = logging.getLogger("evaluation_speed")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    n_pictures: int = 4
    """Pictures to ask about."""
    batch_size: int = 4
    """Pictures per pass of our decoders."""


def main() -> None:
    """Measure every way and set them side by side."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = default_device()
    encoder = PromptEncoder(load_processor(TINY_MODEL, PixelLimits()))
    model = full_size_model(torch.bfloat16, device, encoder).requires_grad_(False).eval()
    recogniser = Recogniser(model)
    recogniser.add_head()
    recogniser.requires_grad_(False)
    images = []
    for i in range(config.n_pictures):
        packaging = drawing.random_packaging(random.Random(i))
        images.append(drawing.draw(packaging, drawing.View(), 600, "BENCH").image)

    def plain(n_tokens: int) -> None:
        for image in images:
            inputs = encoder.processor(text=[encoder.prompt_text], images=[image], return_tensors="pt").to(device)
            model.generate(**inputs, max_new_tokens=n_tokens, do_sample=False, pad_token_id=encoder.pad_token_id)

    def decode(name: Any) -> None:
        decoder = make_decoder(name, recogniser, encoder)
        for start in range(0, len(images), config.batch_size):
            pixels = [encoder.pixels(image) for image in images[start : start + config.batch_size]]
            decoder([one.grid for one in pixels], recogniser.picture_states(pixels))

    ways: dict[str, Callable[[], None]] = {"reference": lambda: plain(30), "reference_4_tokens": lambda: plain(4)}
    ways |= {name: (lambda name=name: decode(name)) for name in NAMES}
    rows = []
    for name, way in ways.items():
        seconds = _timed(way, device)
        rows.append({"way": name, "seconds": round(seconds, 3), "pictures_per_second": config.n_pictures / seconds})
        rows[-1]["ratio"] = rows[-1]["pictures_per_second"] / rows[0]["pictures_per_second"]
        logger.info("%-20s %8.3f pictures/s %6.2f x", name, rows[-1]["pictures_per_second"], rows[-1]["ratio"])
    hardware = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    )
    out = REPOSITORY / "benchmarks" / "results" / f"evaluation_speed_{device.type}.json"
    out.parent.mkdir(exist_ok=True)
    plain_json = {"device": hardware, "n_pictures": config.n_pictures, "batch_size": config.batch_size, "rows": rows}
    out.write_text(json.dumps({**plain_json, **environment()}, indent=2) + "\n")


@torch.no_grad()
def _timed(way: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of a run; on CUDA of the second, since the first compiles."""
    if device.type == "cuda":
        way()
        torch.cuda.synchronize()
    started = time.perf_counter()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
