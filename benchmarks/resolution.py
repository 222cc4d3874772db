"""Cost of visual tokens and the print size that they resolve, for the choice of `--max-tokens`.

At the true shape of Qwen2-VL-2B with random weights, for a square image at each maximum of tokens:
    memory     the estimate of `finetune.py --plan` for the reference recipe, one image per pass, in bf16
    operations and seconds of a prediction (`--decoder rank`) of a new image, and of a training pass, forward and
               backward; one image each. On a CPU the seconds are processor time, which depends less on other load
    print      the height in pixels of lines of text at the model's input

Typical heights are shares of the image's height, as OCR (PP-OCRv6 small, native size) found them on 192 photos of
packs from shops: 1,773 lines, and the 154 lines with the words that decided the reader's category. Print that OCR did
not find is not included. `--pack-text` uses the heights of your own images instead.

Out: benchmarks/results/resolution_<device>_<dtype>.json and a table.
Command: python benchmarks/resolution.py [--pack-text clean_dataset/annotations/pack_text.jsonl]
         python benchmarks/resolution.py --shape tiny --out tried.json   (tries the script, measures nothing)
Time: about 20 minutes of one CPU core; seconds on a GPU.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
import tyro
from PIL import Image

from finetune_variants import flop_counter
from full_size import REPOSITORY, Dtype, device_name, full_size_model, native_dtype, timed
from skincare.inference.decoders import make_decoder
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.loading import default_device, load_model, load_processor
from skincare.modeling.losses import example_losses
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import PixelLimits, Trainable
from skincare.paths import TINY_MODEL
from skincare.runlog import environment
from skincare.text_reading.evidence import EvidenceFinder
from skincare.text_reading.pack_text import PackText, read_pack_text
from skincare.text_reading.phrases import phrases_of
from skincare.training import memory_plan
from skincare.training.recipes import REFERENCE_PARTS

logger = logging.getLogger("resolution")

# Deciles of the line's height as a share of the image's, see above.
_PHOTOS: Final[dict[str, dict[str, float]]] = {
    "all_lines": {"10": 0.0170, "25": 0.0207, "50": 0.0271, "75": 0.0378, "90": 0.0561},
    "deciding_lines": {"10": 0.0201, "25": 0.0237, "50": 0.0317, "75": 0.0437, "90": 0.0620},
}
_SIDE_PX: Final = 1000  # of the image that is scaled to the limits; any square gives the same


@dataclass(frozen=True)
class Config:
    """What to measure."""

    tokens: tuple[int, ...] = (128, 256, 512, 1024)
    """Maxima of visual tokens of an image."""
    pack_text: Path | None = None
    """Text of your images, written by read_text.py, for the heights of print."""
    dtype: Dtype | None = None
    """Data type of the full shape; the fastest of the device if left out."""
    shape: Literal["full", "tiny"] = "full"
    """The true shape, or the embedded model."""
    out: Path | None = None
    """Where to write the JSON; below benchmarks/results/ if left out."""


def main() -> None:
    """Measure every maximum of tokens and log a table."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = default_device()
    dtype = config.dtype or native_dtype(device)
    heights = _heights(list(read_pack_text(config.pack_text).values())) if config.pack_text else _PHOTOS
    model = _model(config, device, dtype)
    freeze(model, Trainable())
    network = CachedVLM(model)
    out = config.out or REPOSITORY / "benchmarks" / "results" / f"resolution_{device.type}_{dtype}.json"
    rows: list[dict[str, Any]] = []
    for max_tokens in config.tokens:
        rows.append(_row(network, max_tokens, heights, device))
        logger.info("%s", _line(rows[-1]))
        result = {
            "settings": {**dataclasses.asdict(config), "pack_text": str(config.pack_text or ""), "out": ""},
            "device": device_name(device), "dtype": dtype, "threads": torch.get_num_threads(),
            "seconds_are": "processor time" if device.type == "cpu" else "wall time",
            "heights": heights, "rows": rows, **environment(),
        }  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _model(config: Config, device: torch.device, dtype: Dtype) -> Any:
    if config.shape == "tiny":
        return load_model(TINY_MODEL, device)
    encoder = PromptEncoder(load_processor(TINY_MODEL), skincare_labels())
    return full_size_model(getattr(torch, dtype), device, encoder)


def _row(
    network: CachedVLM, max_tokens: int, heights: dict[str, dict[str, float]], device: torch.device
) -> dict[str, Any]:
    """Return costs and print sizes at a maximum of tokens."""
    encoder = PromptEncoder(load_processor(TINY_MODEL, PixelLimits(min(64, max_tokens), max_tokens)), skincare_labels())
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)
    pixels = encoder.patches(Image.fromarray(noise))
    grid = pixels.grid
    side_px = grid[1] * encoder.processor.image_processor.patch_size
    decoder = make_decoder("rank", network, encoder)
    decoder([grid], network.vision_features([pixels]))  # computes the prompt prefix, which is the same for every image

    def predict() -> None:
        decoder([grid], network.vision_features([pixels]))

    def train() -> None:
        features = network.vision_features([pixels])
        example_losses(network, encoder, "none", [grid], features, ["Moisturiser"]).mean().backward()
        network.zero_grad(set_to_none=True)

    network.eval()
    prediction = _measured(predict, device)
    network.train()
    training_pass = _measured(train, device)
    return {
        "max_tokens": max_tokens,
        "tokens": encoder.n_visual_tokens(grid),
        "side_px": side_px,
        "prediction": prediction,
        "training_pass": training_pass,
        "plan": _plan(network.model.config, encoder, grid),
        "print_px": {
            kind: {q: round(side_px * share, 1) for q, share in shares.items()} for kind, shares in heights.items()
        },
    }


def _measured(work: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Return operations and seconds of a piece of work, done once."""
    started = time.process_time()
    with flop_counter() as counter:
        wall = timed(work, device)
    seconds = time.process_time() - started if device.type == "cpu" else wall
    return {"seconds": round(seconds, 2), "gflop": round(counter.get_total_flops() / 1e9, 1)}


def _plan(model_config: Any, encoder: PromptEncoder, grid: tuple[int, int, int]) -> dict[str, Any]:
    """Return the memory plan for one image per pass, and the batch that fits into 16 GiB."""
    n_tokens = encoder.batch([grid], [max(encoder.labels.names, key=len)]).input_ids.shape[1]
    found = memory_plan.plan(
        model_config, REFERENCE_PARTS, n_tokens, grid, batch_size=4, capacity_bytes=16 * memory_plan.GIB,
        n_prefix=len(encoder.prompt_prefix),
    )  # fmt: skip
    return {
        "fixed_gib": round(found.fixed_bytes / memory_plan.GIB, 2),
        "gib_an_image": round(found.activation_bytes_per_image / memory_plan.GIB, 3),
        "micro_batch_in_16_gib": found.micro_batch_size,
        "gradient_checkpointing": found.gradient_checkpointing,
        "total_gib": round(found.total_bytes / memory_plan.GIB, 2),
        "cache_mb_an_image": round(found.cache_bytes_per_image / 1e6, 2),
    }


def _heights(texts: list[PackText]) -> dict[str, dict[str, float]]:
    """Return quantiles of the heights of all lines and of the deciding lines, as shares of the image's height."""
    finder = EvidenceFinder(phrases_of(skincare_labels()))
    lines: list[float] = []
    deciding: list[float] = []
    for one in texts:
        heights = [line.height for line in one.lines]
        lines += heights
        found = [evidence for evidence in finder.find(list(one.texts), heights) if evidence.label]
        if found:
            deciding.append(heights[max(found, key=lambda evidence: evidence.weight).line])
    return {
        kind: {q: round(float(np.quantile(values, int(q) / 100)), 4) for q in _PHOTOS["all_lines"]}
        for kind, values in (("all_lines", lines), ("deciding_lines", deciding))
    }


def _line(row: dict[str, Any]) -> str:
    plan, shown = row["plan"], row["print_px"]["deciding_lines"]
    costs = ", ".join(
        f"{label} {row[key]['gflop']:.0f} GFLOP {row[key]['seconds']:.1f} s"
        for label, key in (("prediction", "prediction"), ("training pass", "training_pass"))
    )
    return (
        f"{row['max_tokens']:5} tokens: {row['side_px']} px, {plan['total_gib']} GiB with "
        f"{plan['micro_batch_in_16_gib']} per pass, {costs}, deciding print {shown['25']} to {shown['75']} px, "
        f"median {shown['50']}"
    )


if __name__ == "__main__":
    main()
