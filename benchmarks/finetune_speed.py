"""Training speed and memory at the true shape of Qwen2-VL-2B: the reference's way, two public trainers, ours.

The weights are random (built from the config, nothing is downloaded), the images drawn, the batch and its images
the same for all; each variant runs in a process of its own. What is measured is an optimizer step: reading and
resizing images, forward, backward, update. The floating-point operations of a step are counted besides
(torch.utils.flop_counter; forward, backward and what is computed twice): their ratio is what a machine that does
nothing else could gain.

    reference         all weights fp32, tied embedding trainable too, autocast, checkpointing, one image at a time
    frozen_embedding  and without the embedding             \
    frozen_in_bf16    and frozen weights in bf16             |  each one step
    together          and all images in one pass           |  further than
    no_hooks          and no gradients for frozen towers     |  the one above
    no_checkpointing  and nothing computed twice             |
    answer_logits     and logits of the answer only         /
    trainer           Hugging Face Trainer, the three modules trainable, its default for checkpointing (off)
    sft_trainer       TRL SFTTrainer, the same, its default for checkpointing (on)
    ours              and the frozen prefix without a graph, images of one size in one call, and the text before the
                      image read once for all
    ours_cached       and the frozen prefix's output from the cache, as finetune.py runs

All compute in bf16 where the device can, else in fp32 (`--dtype`), which leaves frozen_in_bf16 nothing to gain.

Out: benchmarks/results/finetune_speed_<device>_<dtype>.json and a table. Variants that are there already for the same
device and settings are kept: `--variants` may name the rest.
Command: python benchmarks/finetune_speed.py   (pip install trl==1.16.0 for sft_trainer)
         python benchmarks/finetune_speed.py --cap-gb 16 --largest-batch   (on CUDA: a desktop card's share; a second
         table, `largest`, has each variant at the largest batch that fits)
         python benchmarks/finetune_speed.py --tiny   (the embedded model: tries the script, measures nothing)
Time: 20 minutes on two CPU cores; minutes on a GPU. Needs 20 GB of memory.
"""

import dataclasses
import gc
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import tyro

import finetune_variants as ways
from full_size import REPOSITORY, Dtype, device_name, native_dtype, timed
from skincare.modeling import device_memory
from skincare.modeling.model import default_device
from skincare.runlog import environment

logger = logging.getLogger("finetune_speed")

VARIANTS: Final = (*ways.LADDER, "trainer", "sft_trainer", "ours", "ours_cached")
# The reference's training set, whole; it published an hour for 10 epochs of a quarter of it, 407 images.
_EPOCH_IMAGES: Final = 1_630
_REFERENCE_MINUTES: Final = 60 / 10 / 407 * _EPOCH_IMAGES


@dataclass(frozen=True)
class Config:
    """What to measure."""

    variants: str = ",".join(VARIANTS)
    """Variants to run, separated by commas."""
    batch_size: int = 2
    """Images per optimizer step."""
    n_steps: int = 3
    """Steps that are timed, after one that is not."""
    dtype: Dtype | None = None
    """What all compute in; what the device is fastest in if left out."""
    cap_gb: float | None = None
    """On CUDA, let a process have no more than so many GiB."""
    largest_batch: bool = False
    """Also measure with the most images per step that fit, found by doubling."""
    max_batch_size: int = 64
    """Where the doubling ends."""
    timeout_s: float = 3600.0
    """A variant that takes longer is ended; what it has measured by then counts."""
    tiny: bool = False
    """Take the embedded model in place of the true shape."""
    out: str = ""
    """Where to write the JSON; below benchmarks/results/ if left out."""


def measure(config: Config, variant: str) -> dict[str, Any]:
    """Run one variant; return seconds per step, images per second, operations and peak memory."""
    device = default_device()
    if config.cap_gb and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, config.cap_gb * 2**30 / total))
    device_memory.reset_peak(device)
    with tempfile.TemporaryDirectory() as name:
        names = ways.images(Path(name), config.batch_size)
        setting = ways.Setting(Path(name), names, device, _torch_dtype(config, device), config.n_steps, config.tiny)
        seconds, n_flop = _run(variant, setting)
    median = statistics.median(seconds)
    return {
        "variant": variant,
        "batch_size": config.batch_size,
        "step_seconds": [round(value, 3) for value in seconds],
        "images_per_second": config.batch_size / median,
        "gflop_per_image": n_flop / config.batch_size / 1e9,
        "peak_gib": device_memory.peak_bytes(device) / 2**30,
        "minutes_per_epoch": _EPOCH_IMAGES * median / config.batch_size / 60,
    }


def _torch_dtype(config: Config, device: torch.device) -> torch.dtype:
    return torch.bfloat16 if (config.dtype or native_dtype(device)) == "bfloat16" else torch.float32


def _run(variant: str, setting: ways.Setting) -> tuple[list[float], int]:
    """Return the seconds of the timed steps, and the operations of the one before them."""
    if variant in ("trainer", "sft_trainer"):
        return {"trainer": ways.trainer, "sft_trainer": ways.sft_trainer}[variant](setting)
    if variant in ways.LADDER:
        step = ways.plain(setting, ways.LADDER[variant])
    else:
        step = ways.ours(setting, cached=variant == "ours_cached")
        step()  # fills the cache and reads the text before the image, which is no part of a step
    with ways.flop_counter() as counter:
        step()
    return [timed(step, setting.device) for _ in range(setting.n_steps)], counter.get_total_flops()


def _batch_sizes(config: Config, variant: str) -> list[int]:
    """Return the batch sizes to try; what passes one image at a time needs no more memory for more of them."""
    sizes = [config.batch_size]
    is_one_at_a_time = variant in ways.LADDER and ways.LADDER[variant].one_at_a_time
    while config.largest_batch and not is_one_at_a_time and 2 * sizes[-1] <= config.max_batch_size:
        sizes.append(2 * sizes[-1])
    return sizes


def _measure_sizes(config: Config, variant: str, sender: Any) -> None:
    """Send a row for each batch size, the last perhaps with what went wrong; runs in a process of its own."""
    os.environ["WANDB_MODE"] = "disabled"
    for size in _batch_sizes(config, variant):
        try:
            row = measure(dataclasses.replace(config, batch_size=size), variant)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            sender.send({"variant": variant, "batch_size": size, "error": f"{type(error).__name__}: {lines[0][:300]}"})
            raise
        sender.send(row)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def measure_apart(config: Config, variant: str, work: Callable[..., None] = _measure_sizes) -> list[dict[str, Any]]:
    """Return the rows of a variant, measured in a new process; the last may be one with what went wrong."""
    # A fork saves the imports, but CUDA forbids it once anything has asked for a device, as libraries do when imported.
    context: Any = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(config, variant, sender))
    process.start()
    sender.close()
    rows, deadline = [], time.monotonic() + config.timeout_s
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            rows.append(receiver.recv())
        error = f"took longer than {config.timeout_s:g} s"
    except EOFError:
        process.join()
        error = f"ended with exit code {process.exitcode}" if process.exitcode else ""
    process.kill()
    process.join()
    if error and not (rows and "error" in rows[-1]):
        n_tried = len(rows)
        rows.append({"variant": variant, "batch_size": config.batch_size * 2**n_tried, "error": error})
    return rows


def first_and_largest(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the row of the smallest batch, and that of the largest which fits with what keeps more from fitting."""
    good = [row for row in rows if "error" not in row]
    if not good:
        return rows[0], dict(rows[0])
    last = rows[-1]
    limit = {"does_not_fit": last["batch_size"], "why": last["error"]} if "error" in last else {}
    return good[0], {**good[-1], **limit}


def main() -> None:
    """Run every variant in a process of its own and set them side by side."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = default_device()
    config = dataclasses.replace(config, dtype=config.dtype or native_dtype(device))
    settings = {
        key: value for key, value in dataclasses.asdict(config).items() if key not in ("variants", "out", "timeout_s")
    }
    settings = {"device": device_name(device), **settings}
    suffix = "tiny" if config.tiny else f"{device.type}_{config.dtype}"
    out = Path(config.out or REPOSITORY / "benchmarks" / "results" / f"finetune_speed_{suffix}.json")
    tables = _earlier(out, settings)
    for variant in config.variants.split(","):
        for rows, row in zip(tables.values(), first_and_largest(measure_apart(config, variant)), strict=False):
            rows[variant] = row
            compare(rows)
        logger.info("%s", {name: rows[variant] for name, rows in tables.items()})
        out.parent.mkdir(parents=True, exist_ok=True)
        plain = {**settings, "reference_published_minutes_per_epoch": round(_REFERENCE_MINUTES, 1)}
        ordered = {name: [rows[one] for one in VARIANTS if one in rows] for name, rows in tables.items()}
        out.write_text(json.dumps({**plain, **ordered, **environment()}, indent=2) + "\n")
    for rows in ordered.values():
        logger.info("%s", "\n".join(table(rows)))


def _earlier(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows of an earlier run with the same settings on the same device, for either table."""
    found = json.loads(out.read_text()) if out.is_file() else {}
    is_same = all(found.get(key) == value for key, value in settings.items())
    names = ("rows", "largest") if settings["largest_batch"] else ("rows",)
    return {name: {row["variant"]: row for row in found[name]} if is_same else {} for name in names}


def compare(rows: dict[str, dict[str, Any]]) -> None:
    """Add to each row its speed against the reference and what the last variant gains on it."""
    first, last = (rows.get(name, {}) for name in ("reference", "ours_cached"))
    for row in rows.values():
        if "error" in row:
            continue
        if "images_per_second" in first:
            row["ratio"] = row["images_per_second"] / first["images_per_second"]
        if "images_per_second" in last:
            row["ours_gains"] = last["images_per_second"] / row["images_per_second"]
            row["operations_allow"] = row["gflop_per_image"] / last["gflop_per_image"]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows as lines of a Markdown table."""
    lines = [
        "| | Images/s | Ratio | Peak memory | GFLOP/image | Ours gains | Operations alone allow | Minutes/epoch |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['variant']} | {row['error']} | | | | | | |")
            continue
        ratio, gains, allow = (
            f"{row[key]:.1f} x" if key in row else "" for key in ("ratio", "ours_gains", "operations_allow")
        )
        lines.append(
            f"| {row['variant']} | {row['images_per_second']:.2f} | {ratio} | {row['peak_gib']:.1f} GiB | "
            f"{row['gflop_per_image']:,.0f} | {gains} | {allow} | {row['minutes_per_epoch']:.1f} |"
        )
    return lines


if __name__ == "__main__":
    main()
