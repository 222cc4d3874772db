"""Speed of the four decoders at the true shape of Qwen2-VL-2B, compared with the reference experiment's inference.

The weights are random; the images are rendered and the same for all methods. The reference experiment predicts one
image at a time by `model.generate` with at most 30 new tokens. Random weights never generate the end token, so that it
computes all 30; a trained model ends a label after about 4, which is measured too (`reference_4_tokens`). `batched` is
the same `generate` over whole batches. Rows `_cached` are of images whose vision features are in the cache.

In addition to the seconds, the floating-point operations of every method are counted (torch.utils.flop_counter) in an
untimed pass: their ratio bounds the speed-up of a machine that is limited by arithmetic.

Out: benchmarks/results/evaluation_speed_<device>_<dtype>.json and a table.
Command: python benchmarks/evaluation_speed.py
         python benchmarks/evaluation_speed.py --shape tiny --out tried.json   (tries the script, measures nothing)
Time: about 8 minutes on two CPU cores; seconds on a GPU.
"""

import hashlib
import io
import json
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch
import tyro
from PIL import Image

from finetune_variants import flop_counter
from full_size import REPOSITORY, Dtype, device_name, full_size_model, native_dtype, timed
from skincare.inference.decoders import NAMES, DecoderName, make_decoder
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.loading import default_device, load_model, load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits
from skincare.modeling.vision_features import VisionFeatures
from skincare.paths import TINY_MODEL
from skincare.runlog import environment
from skincare.sample import drawing

logger = logging.getLogger("evaluation_speed")

_CACHED: Final[tuple[DecoderName, ...]] = ("constrained", "rank", "head")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    n_images: int = 4
    """Images to predict."""
    n_reference: int | None = None
    """Images for the methods that predict one at a time; all if left out."""
    batch_size: int = 4
    """Images per pass of all other methods."""
    dtype: Dtype | None = None
    """Data type of the full shape; the fastest of the device if left out."""
    shape: Literal["full", "tiny"] = "full"
    """The true shape, or the embedded model."""
    out: Path | None = None
    """Where to write the JSON; below benchmarks/results/ if left out."""


class DrawnImages:
    """Drawn photos of 600 x 600 pixels, decoded and as the bytes of a file; their names are numbers."""

    def __init__(self, n_images: int) -> None:
        self.images: dict[str, Image.Image] = {}
        for i in range(n_images):
            packaging = drawing.random_packaging(random.Random(i))
            self.images[str(i)] = drawing.draw(packaging, drawing.View(), 600, "BENCH").image

    def sha256_of(self, image: str) -> str:
        """Return the hash of the bytes."""
        return hashlib.sha256(self.bytes_of(image)).hexdigest()

    def bytes_of(self, image: str) -> bytes:
        """Return the bytes of a lossless file, so that the model sees the same either way."""
        buffer = io.BytesIO()
        self.images[image].save(buffer, "png")
        return buffer.getvalue()


class Inference:
    """A model, the images, and the methods to predict them."""

    def __init__(self, config: Config, device: torch.device, dtype: Dtype) -> None:
        self.encoder = PromptEncoder(load_processor(TINY_MODEL, PixelLimits()), skincare_labels())
        if config.shape == "full":
            self.model = full_size_model(getattr(torch, dtype), device, self.encoder).requires_grad_(False).eval()
        else:
            self.model = load_model(TINY_MODEL, device).requires_grad_(False)
        # As in every stage that predicts: the last block of the vision tower is not cached.
        self.network = CachedVLM(self.model, n_uncached_blocks=1)
        self.network.add_head(len(self.encoder.labels))
        self.network.requires_grad_(False)
        self.drawn = DrawnImages(config.n_images)
        self.cached = VisionFeatures(self.network, self.encoder, self.drawn)
        self.batch_size = config.batch_size

    def methods(self) -> dict[str, Callable[[Sequence[str]], None]]:
        """Return all inference methods by name, that of the reference experiment first."""
        return {
            "reference": partial(self.plain, 30, 1),
            "reference_4_tokens": partial(self.plain, 4, 1),
            "batched": partial(self.plain, 30, self.batch_size),
            **{name: partial(self.decode, name, self.vision_features) for name in NAMES},
            **{f"{name}_cached": partial(self.decode, name, self.cached.get) for name in _CACHED},
        }

    def warm_up(self) -> None:
        """Fill the caches of vision features and of the prompt prefix."""
        images = list(self.drawn.images)
        self.cached.fill(images, self.batch_size)
        self.decode("head", self.cached.get, images)

    def plain(self, n_tokens: int, batch_size: int, images: Sequence[str]) -> None:
        """Predict by `generate` of transformers; the reference experiment does so with a batch size of 1."""
        encoder = self.encoder
        for start in range(0, len(images), batch_size):
            batch = [self.drawn.images[image] for image in images[start : start + batch_size]]
            # All have one size, so nothing is padded.
            inputs = encoder.processor(text=[encoder.prompt_text] * len(batch), images=batch, return_tensors="pt")
            self.model.generate(
                **inputs.to(self.network.device), max_new_tokens=n_tokens, do_sample=False,
                pad_token_id=encoder.pad_token_id,
            )  # fmt: skip

    def decode(
        self, name: DecoderName, features_of: Callable[[list[str]], tuple[list, list]], images: Sequence[str]
    ) -> None:
        """Predict with a decoder from the vision features of each batch."""
        decoder = make_decoder(name, self.network, self.encoder)
        for start in range(0, len(images), self.batch_size):
            decoder(*features_of(list(images[start : start + self.batch_size])))

    def vision_features(self, images: list[str]) -> tuple[list, list]:
        """Compute grids and vision features, without the cache."""
        pixels = [self.encoder.patches(self.drawn.images[image]) for image in images]
        return [one.grid for one in pixels], self.network.vision_features(pixels)


def main() -> None:
    """Measure every method and log a table."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = default_device()
    dtype = config.dtype or native_dtype(device)
    inference = Inference(config, device, dtype)
    inference.warm_up()
    images = list(inference.drawn.images)
    rows: list[dict[str, Any]] = []
    logger.info("%-20s %10s %8s %14s %17s", "method", "images/s", "ratio", "GFLOP/image", "operations allow")
    for name, predict in inference.methods().items():
        is_single = name.startswith("reference")
        timed_images = images[: config.n_reference] if is_single else images
        measured = _measured(predict, timed_images, 1 if is_single else config.batch_size, device)
        rows.append({"method": name, "n_images": len(timed_images), **measured})
        rows[-1]["ratio"] = rows[-1]["images_per_second"] / rows[0]["images_per_second"]
        rows[-1]["operations_allow"] = rows[0]["gflop_per_image"] / rows[-1]["gflop_per_image"]
        logger.info(
            "%-20s %10.3f %6.2f x %14.1f %15.2f x", name, rows[-1]["images_per_second"], rows[-1]["ratio"],
            rows[-1]["gflop_per_image"], rows[-1]["operations_allow"],
        )  # fmt: skip
        _write(config, device, dtype, rows)


@torch.no_grad()
def _measured(
    predict: Callable[[Sequence[str]], None], images: Sequence[str], batch_size: int, device: torch.device
) -> dict[str, float]:
    """Return the operations of a first pass over one batch, on CUDA the one that compiles, and the seconds of all."""
    counted = images[:batch_size]
    with flop_counter() as counter:
        predict(counted)
    seconds = timed(partial(predict, images), device)
    return {
        "seconds": round(seconds, 3),
        "images_per_second": len(images) / seconds,
        "gflop_per_image": counter.get_total_flops() / len(counted) / 1e9,
    }


def _write(config: Config, device: torch.device, dtype: Dtype, rows: list[dict[str, Any]]) -> None:
    out = config.out or REPOSITORY / "benchmarks" / "results" / f"evaluation_speed_{device.type}_{dtype}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    setting = {"shape": config.shape, "dtype": dtype, "n_images": config.n_images, "batch_size": config.batch_size}
    out.write_text(
        json.dumps({"device": device_name(device), **setting, "rows": rows, **environment()}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
