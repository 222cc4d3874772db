"""How training steps are cut into passes: padded tokens before and after sorting, and time with images loaded ahead.

Padding: the share of padded tokens, over 20 epochs of steps drawn from the shapes of the images in a folder, cut in the
order of the epoch and sorted by prompt length (`skincare.training.accumulation`); and the share of passes without
padding. Answers are drawn from the labels.

Time: steps of the embedded model from augmented images, which are decoded in every step, with and without a thread that
loads the next pass, in turn. On a CPU both compete for the same cores.

Out: benchmarks/results/training_passes.json and tables.
Command: python benchmarks/training_passes.py --images FOLDER
Time: two minutes on two CPU cores.
"""

import json
import logging
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
import tyro

import finetune_variants as variants
from full_size import REPOSITORY, timed
from skincare import images
from skincare.labels import skincare_labels
from skincare.modeling.loading import load_processor
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits
from skincare.paths import TINY_MODEL
from skincare.runlog import environment
from skincare.training.accumulation import micro_batches
from skincare.training.distributed import World

logger = logging.getLogger("training_passes")

_LIMITS: Final = ((64, 128), (64, 256), (256, 512), (256, 1280))
# Images per step and per pass.
_SIZES: Final = ((8, 4), (16, 4), (16, 8))
_N_EPOCHS: Final = 20


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    images: Path
    """Folder of images, searched with its subfolders."""
    n_rounds: int = 8
    """Timed steps of each variant."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "training_passes.json"
    """Results file."""


def main() -> None:
    """Measure padding and time; print and write them."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sizes = image_sizes(config.images)
    rows = [row for limits in _LIMITS for row in padding(sizes, PixelLimits(*limits))]
    for row in rows:
        logger.info("%s", row)
    found = {"n_images": len(sizes), "padding": rows, "seconds_per_step": step_seconds(config.n_rounds)}
    logger.info("%s", found["seconds_per_step"])
    config.out.write_text(json.dumps({**found, **environment()}, indent=2) + "\n")


def image_sizes(folder: Path) -> list[tuple[int, int]]:
    """Return width and height of the images in a folder that have a header."""
    sizes = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        try:
            sizes.append(images.displayed_size(path.read_bytes()))
        except images.BrokenImageError:
            logger.info("left out: %s", path.name)
    return sizes


def padding(sizes: Sequence[tuple[int, int]], limits: PixelLimits) -> list[dict[str, Any]]:
    """Return the shares of padded tokens and of passes without padding, unsorted and sorted."""
    encoder, rng = PromptEncoder(load_processor(TINY_MODEL, limits), skincare_labels()), random.Random(0)
    n_text = len(encoder.prompt_tokens) - len(encoder.prompt_prefix)
    lengths = [
        n_text + encoder.n_tokens_of_size(size) + len(encoder.answer_tokens(rng.choice(encoder.labels.names)))
        for size in sizes
    ]
    rows = []
    for n_step, n_pass in _SIZES:
        row: dict[str, Any] = {"min_tokens": limits.min_tokens, "max_tokens": limits.max_tokens}
        row |= {"images_per_step": n_step, "images_per_pass": n_pass}
        for name, is_sorted in (("unsorted", False), ("sorted", True)):
            passes = [one for epoch in range(_N_EPOCHS) for one in _passes(lengths, epoch, n_step, n_pass, is_sorted)]
            n_padded = sum(max(one) * len(one) - sum(one) for one in passes)
            row[f"{name}_padded_share"] = round(n_padded / (n_padded + sum(map(sum, passes))), 4)
            row[f"{name}_unpadded_passes"] = round(sum(max(one) == min(one) for one in passes) / len(passes), 4)
        rows.append(row)
    return rows


def _passes(lengths: Sequence[int], epoch: int, n_step: int, n_pass: int, is_sorted: bool) -> list[list[int]]:
    """Return the prompt lengths of each pass of an epoch, without its incomplete last step."""
    order = list(lengths)
    random.Random(epoch).shuffle(order)
    loss: Any = SimpleNamespace(prompt_length=lambda length, _epoch: length if is_sorted else 0)
    found = []
    for start in range(0, len(order) - n_step + 1, n_step):
        step: Any = order[start : start + n_step]
        found += [list(one.examples) for one in micro_batches(loss, step, epoch, n_pass, World())]
    return found


def step_seconds(n_rounds: int) -> dict[str, float]:
    """Return the median seconds of a step of four images without and with loading ahead."""
    device, seconds = torch.device("cpu"), {"in_turn": [0.0] * 0, "ahead": [0.0] * 0}
    with tempfile.TemporaryDirectory() as name:
        names = variants.images(Path(name), 4)
        setting = variants.Setting(Path(name), names, device, torch.float32, n_rounds, is_tiny=True)
        steps = {kind: variants.ours(setting, cached=False, ahead=kind == "ahead") for kind in seconds}
        for step in steps.values():
            step()
        for _ in range(n_rounds):
            for kind, step in steps.items():
                seconds[kind].append(timed(step, device))
    return {kind: round(statistics.median(values), 4) for kind, values in seconds.items()}


if __name__ == "__main__":
    main()
