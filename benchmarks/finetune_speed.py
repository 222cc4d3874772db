"""Training speed and memory at the full size of Qwen2-VL-2B: the reference experiment, two public trainers, ours.

The weights are random (built from the config, nothing is downloaded), the images are drawn, and all variants train on
the same batch, each in its own process. An optimizer step is measured: reading and resizing images, forward, backward,
update. The floating-point operations of a step are counted too (torch.utils.flop_counter; forward, backward and
recomputation): their ratio is the speed-up that operations alone allow.

    reference         all weights fp32, tied embedding trainable too, autocast, checkpointing, one image at a time
    frozen_embedding  embedding frozen                        \
    frozen_in_bf16    frozen weights in bf16                   |  each adds one
    together          all images in one pass                   |  change to the
    no_hooks          no gradients for frozen towers           |  variant above
    no_checkpointing  no recomputation                         |
    answer_logits     logits of the answer only               /
    trainer           Hugging Face Trainer, the three modules trainable, its default for checkpointing (off); on CUDA
                      with pinned memory and processes that load batches ahead
    sft_trainer       TRL SFTTrainer, the same, its default for checkpointing (on)
    ours              frozen prefix without a graph, images of one size in one call, cached prompt prefix
    ours_cached       and vision features from the cache, as finetune.py runs

All compute in bf16 if the device supports it, otherwise in fp32 (`--dtype`), where frozen_in_bf16 has no effect.

Out: benchmarks/results/finetune_speed_<device>_<dtype>.json and a table. Rows of the same device
and settings are kept: `--variants` may select the remaining ones.
Command: python benchmarks/finetune_speed.py   (pip install trl==1.16.0 for sft_trainer)
         python benchmarks/finetune_speed.py --cap-gb 16 --largest-batch   (on CUDA: the memory of a desktop card; a
         second table, `largest`, has each variant at the largest batch that fits)
         python benchmarks/finetune_speed.py --tiny   (the embedded model: tests the script only)
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

import finetune_variants as variants
from full_size import REPOSITORY, Dtype, device_name, native_dtype, timed
from skincare.modeling import device_memory
from skincare.modeling.loading import default_device
from skincare.runlog import environment

logger = logging.getLogger("finetune_speed")

VARIANTS: Final = (*variants.LADDER, "trainer", "sft_trainer", "ours", "ours_cached")
# The reference experiment's whole training set; it reported an hour for 10 epochs of a quarter of it, 407 images.
_EPOCH_IMAGES: Final = 1_630
_REFERENCE_MINUTES: Final = 60 / 10 / 407 * _EPOCH_IMAGES


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    variants: str = ",".join(VARIANTS)
    """Variants to run, separated by commas."""
    batch_size: int = 2
    """Images per optimizer step."""
    n_steps: int = 3
    """Timed steps, after one that is not timed."""
    dtype: Dtype | None = None
    """Dtype of computation; by default the fastest of the device."""
    cap_gb: float | None = None
    """Memory limit of a process on CUDA, in GiB."""
    largest_batch: bool = False
    """Also measure the largest batch that fits, found by doubling."""
    max_batch_size: int = 64
    """Upper limit of the doubling."""
    timeout_s: float = 3600.0
    """Time limit of a variant; rows measured by then are kept."""
    tiny: bool = False
    """Use the embedded model instead of the full size."""
    out: str = ""
    """Output file; by default in benchmarks/results/."""


def measure(config: Config, variant: str) -> dict[str, Any]:
    """Run one variant; return seconds per step, images per second, operations and peak memory."""
    device = default_device()
    if config.cap_gb and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, config.cap_gb * 2**30 / total))
    device_memory.reset_peak(device)
    with tempfile.TemporaryDirectory() as name:
        names = variants.images(Path(name), config.batch_size)
        setting = variants.Setting(Path(name), names, device, _torch_dtype(config, device), config.n_steps, config.tiny)
        seconds, n_flop = _run(variant, setting)
    median = statistics.median(seconds)
    is_trainer = variant in ("trainer", "sft_trainer")
    return {
        "variant": variant,
        **({"loading_processes": variants.n_loading_processes(device)} if is_trainer else {}),
        "batch_size": config.batch_size,
        "step_seconds": [round(value, 3) for value in seconds],
        "images_per_second": config.batch_size / median,
        "gflop_per_image": n_flop / config.batch_size / 1e9,
        "peak_gib": device_memory.peak_bytes(device) / 2**30,
        "minutes_per_epoch": _EPOCH_IMAGES * median / config.batch_size / 60,
    }


def _torch_dtype(config: Config, device: torch.device) -> torch.dtype:
    return torch.bfloat16 if (config.dtype or native_dtype(device)) == "bfloat16" else torch.float32


def _run(variant: str, setting: variants.Setting) -> tuple[list[float], int]:
    """Return the seconds of the timed steps, and the operations of the step before them."""
    if variant in ("trainer", "sft_trainer"):
        return {"trainer": variants.trainer, "sft_trainer": variants.sft_trainer}[variant](setting)
    if variant in variants.LADDER:
        step = variants.plain(setting, variants.LADDER[variant])
    else:
        step = variants.ours(setting, cached=variant == "ours_cached")
        step()  # fills the feature cache and the prompt prefix, which are not part of a step
    with variants.flop_counter() as counter:
        step()
    return [timed(step, setting.device) for _ in range(setting.n_steps)], counter.get_total_flops()


def _batch_sizes(config: Config, variant: str) -> list[int]:
    """Return the batch sizes to try; a variant with one image per pass has a single one, as memory is constant."""
    sizes = [config.batch_size]
    is_one_at_a_time = variant in variants.LADDER and variants.LADDER[variant].one_at_a_time
    while config.largest_batch and not is_one_at_a_time and 2 * sizes[-1] <= config.max_batch_size:
        sizes.append(2 * sizes[-1])
    return sizes


def _measure_sizes(config: Config, variant: str, sender: Any) -> None:
    """Send a row for each batch size, the last possibly with an error; runs in its own process."""
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


def measure_in_process(
    config: Config, variant: str, work: Callable[..., None] = _measure_sizes
) -> list[dict[str, Any]]:
    """Return the rows of a variant, measured in a new process; the last may hold an error."""
    # Forking saves the imports, but CUDA forbids it after initialisation, which libraries do when imported.
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
    """Return the rows of the smallest and of the largest batch that fits, the latter with the error of the next one."""
    good = [row for row in rows if "error" not in row]
    if not good:
        return rows[0], dict(rows[0])
    last = rows[-1]
    limit = {"does_not_fit": last["batch_size"], "why": last["error"]} if "error" in last else {}
    return good[0], {**good[-1], **limit}


def main() -> None:
    """Run every variant in its own process and compare them."""
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
    tables = _earlier_rows(out, settings)
    for variant in config.variants.split(","):
        for rows, row in zip(tables.values(), first_and_largest(measure_in_process(config, variant)), strict=False):
            rows[variant] = row
            compare(rows)
        logger.info("%s", {name: rows[variant] for name, rows in tables.items()})
        out.parent.mkdir(parents=True, exist_ok=True)
        plain = {**settings, "reference_published_minutes_per_epoch": round(_REFERENCE_MINUTES, 1)}
        ordered = {name: [rows[one] for one in VARIANTS if one in rows] for name, rows in tables.items()}
        out.write_text(json.dumps({**plain, **ordered, **environment()}, indent=2) + "\n")
    for rows in ordered.values():
        logger.info("%s", "\n".join(table(rows)))


def _earlier_rows(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows of an earlier run with the same settings and device, for each table."""
    found = json.loads(out.read_text()) if out.is_file() else {}
    is_same = all(found.get(key) == value for key, value in settings.items())
    names = ("rows", "largest") if settings["largest_batch"] else ("rows",)
    return {name: {row["variant"]: row for row in found[name]} if is_same else {} for name in names}


def compare(rows: dict[str, dict[str, Any]]) -> None:
    """Add to each row its speed relative to the reference, and the gain of the last variant over it."""
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
